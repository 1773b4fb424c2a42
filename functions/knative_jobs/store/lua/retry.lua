-- Submits a failed or cancelled job once more, with all its attempts before it; no sooner than at its run-at.
-- ARGV   1 id   2 the name of the caller's token, or ''
-- Reply  {status before, status now, attempts so far, kind, how many of its jobs are due, when it is due, 0: now}, or {'unknown'}; {status, status} when
--        it is neither failed nor cancelled, and nothing was changed
-- Guarantee  the attempt number goes on from where it was, so a late finish of an earlier attempt is still refused. An end
--            that was not announced yet is not announced any more, for it is none.

local id, at = ARGV[1], now()
local job = read_job(id, 'attempt', 'run-at')
if not job then return {'unknown'} end
local is_retried, due = retry_one(id, job, at, ARGV[2])
if not is_retried then return {job[1], job[1]} end
return {job[1], 'submitted', whole(job[4]), job[3], due_count(job[3], at), due > at and stamp(due) or '0'}
