-- Claims one job for a worker: the named one, or the one that has been due the longest.
-- ARGV   1 id, or '' for the one due the longest   2 lease in seconds   3 worker-ip
-- Reply  {id, attempt, failures, start, end, number-fields, traceparent}   claimed; attempt is the fencing token
--        'none'      no job is due
--        'taken'     the job is not waiting: a worker has it, or it has ended
--        'early'     the job waits for its next attempt
--        'unknown'   there is no such job
-- Guarantee  no two claims get the same job with the same attempt, and none gets a job that another still holds.

local id, lease, worker_ip = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local at = now()
if id == '' then
  id = redis.call('ZRANGE', 'jobs.due', '-inf', at, 'BYSCORE', 'LIMIT', 0, 1)[1]
  if not id then return 'none' end
else
  local due = redis.call('ZSCORE', 'jobs.due', id)
  if not due then
    if redis.call('EXISTS', record_key(id)) == 0 then return 'unknown' end
    count_only('duplicates')
    return 'taken'
  end
  if tonumber(due) > at then return 'early' end
end

redis.call('ZREM', 'jobs.due', id)
local submitted_at = move(id, 'submitted', 'in progress', 'worker-ip', worker_ip, 'started-at', stamp(at))
redis.call('ZADD', 'jobs.leases', at + lease, id)
local attempt = redis.call('HINCRBY', record_key(id), 'attempt', 1)
if attempt == 1 then observe('waited', math.max(0, at - submitted_at), at) else count('restarted', 1, at) end
local job = redis.call('HMGET', record_key(id), 'failures', 'start', 'end', 'number-fields', 'traceparent')
return {id, attempt, tonumber(job[1] or 0), job[2], job[3], job[4] or '', job[5] or ''}
