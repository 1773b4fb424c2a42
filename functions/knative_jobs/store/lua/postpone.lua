-- Puts a waiting job off, for its event was not delivered.
-- ARGV   1 id   2 delay in seconds
-- Reply  1 when the job waits, else 0
-- Guarantee  it is due no sooner than after the delay, and no sooner than it was. That it has waited since it was due first
--            is kept. A job that does not wait is left alone.

local job = read_job(ARGV[1])
local due = job and read('ZSCORE', due_key(job[3]), ARGV[1])
if not due then return 0 end
write('ZADD', postponed_key(job[3]), 'NX', due, ARGV[1])
write('ZADD', due_key(job[3]), math.max(tonumber(due), now() + tonumber(ARGV[2])), ARGV[1])
return 1
