-- Submits a failed or cancelled job once more, with all its attempts before it.
-- ARGV   1 id
-- Reply  {status before, status now, attempts so far, number of jobs due}, or {'unknown'}; {status, status} when it
--        is neither failed nor cancelled, and nothing was changed
-- Guarantee  the attempt number goes on from where it was, so a late finish of an earlier attempt is still refused. An end
--            that was not announced yet is not announced any more, for it is none.

local id = ARGV[1]
local status = redis.call('HGET', record_key(id), 'status')
if not status then return {'unknown'} end
if status ~= 'failed' and status ~= 'cancelled' then return {status, status} end

redis.call('ZREM', 'jobs.retention', id)
redis.call('ZREM', 'jobs.outbox', id)
redis.call('HDEL', record_key(id), 'failures', 'error', 'finished-at', 'cancel-requested-at')
submit_again(id, status, now(), 0)
count_only('retried')
local attempts = tonumber(redis.call('HGET', record_key(id), 'attempt') or 0)
return {status, 'submitted', attempts, redis.call('ZCARD', 'jobs.due')}
