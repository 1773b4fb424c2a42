-- Finds the jobs that have been due for so long that their event must have been lost, or was never sent.
-- ARGV   1 how long, in seconds   2 the most to find
-- Reply  {jobs that wait or run, or whose end is not announced yet, {id, attempts so far, record as JSON}, ...}, due the
--        longest first
-- Guarantee  nothing is changed.

local open = redis.call('ZCARD', 'jobs.due') + redis.call('ZCARD', 'jobs.leases') + redis.call('ZCARD', 'jobs.outbox')
local found = {open}
for _, id in ipairs(redis.call('ZRANGE', 'jobs.due', '-inf', now() - ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2])) do
  found[#found + 1] = {id, redis.call('HGET', record_key(id), 'attempt') or '0', render(id)}
end
return found
