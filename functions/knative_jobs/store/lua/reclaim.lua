-- Takes back the jobs whose lease has run out: the worker died, hung, or was cut off. Each counts as a failed attempt.
-- ARGV   1 the most to take   2 max_attempts   3 retention in seconds   4 the error, as JSON
--        5 the statuses that are announced, with spaces between them
-- Reply  {id, status now, traceparent or '', id, status now, ...}
-- Guarantee  a job is taken back only after its lease, and its late worker's finish is refused from then on once the job
--            has been claimed again or has ended. A job that ends is in the outbox if its status is announced. The time
--            is kept as that of the last sweep.

local at = now()
redis.pcall('HSET', 'jobs.totals', 'swept-at', math.floor(at))  -- where writes are refused, this is nobody's fault
local taken = {}
for _, id in ipairs(redis.call('ZRANGE', 'jobs.leases', '-inf', at, 'BYSCORE', 'LIMIT', 0, ARGV[1])) do
  redis.call('ZREM', 'jobs.leases', id)
  count_only('lease-losses')
  taken[#taken + 1] = id
  taken[#taken + 1] = attempt_failed(id, ARGV[4], at, tonumber(ARGV[2]), 0, tonumber(ARGV[3]), ARGV[5])
  taken[#taken + 1] = redis.call('HGET', record_key(id), 'traceparent') or ''
end
return taken
