-- Submits a failed or cancelled job once more, with all its attempts before it; no sooner than at its run-at.
-- ARGV   1 id
-- Reply  {status before, status now, attempts so far, kind, how many of its jobs are due, when it is due, 0: now}, or {'unknown'}; {status, status} when
--        it is neither failed nor cancelled, and nothing was changed
-- Guarantee  the attempt number goes on from where it was, so a late finish of an earlier attempt is still refused. An end
--            that was not announced yet is not announced any more, for it is none.

local id = ARGV[1]
local job = read_job(id, 'attempt', 'run-at')
if not job then return {'unknown'} end
local status = job[1]
if status ~= 'failed' and status ~= 'cancelled' then return {status, status} end

write('ZREM', RETENTION, id)
write('ZREM', OUTBOX, id)
redis.call('HDEL', record_key(id), 'failures', 'releases', 'error', 'finished-at', 'cancel-requested-at')
local at = now()
local due = math.max(at, moment(job[5]) or 0)
submit_again(id, job, due, 0)
count_only('retried', job[3])
return {status, 'submitted', whole(job[4]), job[3], due_count(job[3], at), due > at and stamp(due) or '0'}
