-- Cancels a waiting job, or asks for a running one to be cancelled.
-- ARGV   1 id   2 the name of the caller's token, or ''   3 retention in seconds
--        4 the statuses that are announced, with spaces between them
-- Reply  {status before, status now}, or {'unknown'}
-- Guarantee  a waiting job can no longer be claimed. A running one learns of it with its next heartbeat; a job that has
--            ended is left as it is. A job that is cancelled now is in the outbox if that is announced.

local job = read_job(ARGV[1])
if not job then return {'unknown'} end
local _, status = cancel_one(ARGV[1], job, now(), ARGV[2], tonumber(ARGV[3]), ARGV[4])
return {job[1], status}
