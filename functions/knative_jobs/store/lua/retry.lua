-- Submits a failed or cancelled job once more, with all its attempts before it.
-- ARGV   1 id
-- Reply  {status before, status now, attempts so far, kind, number of its jobs due}, or {'unknown'}; {status, status} when
--        it is neither failed nor cancelled, and nothing was changed
-- Guarantee  the attempt number goes on from where it was, so a late finish of an earlier attempt is still refused. An end
--            that was not announced yet is not announced any more, for it is none.

local id = ARGV[1]
local job = read_job(id, 'attempt')
if not job then return {'unknown'} end
local status = job[1]
if status ~= 'failed' and status ~= 'cancelled' then return {status, status} end

write('ZREM', RETENTION, id)
write('ZREM', OUTBOX, id)
redis.call('HDEL', record_key(id), 'failures', 'releases', 'error', 'finished-at', 'cancel-requested-at')
submit_again(id, job, now(), 0)
count_only('retried', job[3])
return {status, 'submitted', whole(job[4]), job[3], read('ZCARD', due_key(job[3])) or 0}
