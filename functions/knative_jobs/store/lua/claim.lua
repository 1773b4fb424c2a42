-- Claims one job for a worker: the named one if it is due, else the one that has been due the longest.
-- ARGV   1 id, or '' for the one due the longest   2 lease in seconds   3 worker-ip
-- Reply  {id, attempt, failures, start, end, number-fields, traceparent}   claimed; attempt is the fencing token
--        'none'   no job is due
-- Guarantee  no two claims get the same job with the same attempt, and none gets a job that another still holds.

local id, lease, worker_ip = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local at = now()
if id ~= '' then
  local due = redis.call('ZSCORE', 'jobs.due', id)
  -- A worker has the named job, or it has ended: its event is a duplicate, or came after another worker.
  if not due and redis.call('EXISTS', record_key(id)) == 1 then count_only('duplicates') end
  if not due or tonumber(due) > at then id = '' end
end
if id == '' then
  id = redis.call('ZRANGE', 'jobs.due', '-inf', at, 'BYSCORE', 'LIMIT', 0, 1)[1]
  if not id then return 'none' end
end

redis.call('ZREM', 'jobs.due', id)
local submitted_at = move(id, 'submitted', 'in progress', 'worker-ip', worker_ip, 'started-at', stamp(at))
redis.call('ZADD', 'jobs.leases', at + lease, id)
local attempt = redis.call('HINCRBY', record_key(id), 'attempt', 1)
if attempt == 1 then observe('waited', math.max(0, at - submitted_at), at) else count('restarted', 1, at) end
local job = redis.call('HMGET', record_key(id), 'failures', 'start', 'end', 'number-fields', 'traceparent')
return {id, attempt, tonumber(job[1] or 0), job[2], job[3], job[4] or '', job[5] or ''}
