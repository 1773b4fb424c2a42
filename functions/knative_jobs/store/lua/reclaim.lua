-- Takes back the jobs whose lease has run out: the worker died, hung, or was cut off. Each counts as a failed attempt.
-- ARGV   1 the most to take   2 max_attempts   3 retention in seconds   4 the error, as JSON
--        5 the statuses that are announced, with spaces between them
-- Reply  {id, kind, status now, traceparent or '', id, kind, ...}
-- Guarantee  a job is taken back only after its lease, and its late worker's finish is refused from then on once the job
--            has been claimed again or has ended. A job that ends is in the outbox if its status is announced. A lease of
--            no running job is removed. The time is kept as that of the last sweep.

local at = now()
redis.pcall('HSET', totals_key('default'), 'swept-at', math.floor(at))  -- where writes are refused, this is nobody's fault
local taken = {}
for _, id in ipairs(read('ZRANGE', LEASES, '-inf', at, 'BYSCORE', 'LIMIT', 0, ARGV[1]) or {}) do
  write('ZREM', LEASES, id)
  local job = read_job(id, 'traceparent')
  if job and job[1] == 'in progress' then
    count_only('lease-losses', job[3])
    taken[#taken + 1] = id
    taken[#taken + 1] = job[3]
    taken[#taken + 1] = attempt_failed(id, job, ARGV[4], at, tonumber(ARGV[2]), 0, tonumber(ARGV[3]), ARGV[5])
    taken[#taken + 1] = job[4] or ''
  end
end
return taken
