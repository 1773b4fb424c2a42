-- Takes jobs that have ended, to emit their events.
-- ARGV   1 the most to take   2 for how long nobody else gets them, in seconds: the visibility timeout
-- Reply  {{id, kind, status, finished-at, record as JSON}, ...}, what may be emitted the longest first
-- Guarantee  no two calls get the same end within the visibility timeout, and each end is got again after it until it is
--            said to be announced. What is replied is the record of now, and that of a job that has ended.

local at = now()
local taken = {}
for _, id in ipairs(read('ZRANGE', OUTBOX, '-inf', at, 'BYSCORE', 'LIMIT', 0, ARGV[1]) or {}) do
  local job = read_job(id, 'finished-at')
  local record = job and job[4] and render(id)
  if record then
    write('ZADD', OUTBOX, at + ARGV[2], id)
    taken[#taken + 1] = {id, job[3], job[1], job[4], record}
  else  -- the record is missing, or was removed by scripts from before there was an outbox
    write('ZREM', OUTBOX, id)
  end
end
return taken
