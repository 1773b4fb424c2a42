-- Cancels a waiting job, or asks for a running one to be cancelled.
-- ARGV   1 id   2 retention in seconds   3 the statuses that are announced, with spaces between them
-- Reply  {status before, status now}, or {'unknown'}
-- Guarantee  a waiting job can no longer be claimed. A running one learns of it with its next heartbeat; a job that has
--            ended is left as it is. A job that is cancelled now is in the outbox if that is announced.

local id, retention, announced = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local job = read_job(id)
if not job then return {'unknown'} end

local status = job[1]
if status == 'submitted' then
  not_due(id, job[3])
  finish(id, job, 'cancelled', now(), retention, announced)
  return {'submitted', 'cancelled'}
end
if status == 'in progress' then
  redis.call('HSETNX', record_key(id), 'cancel-requested-at', stamp(now()))
  changed(id)
end
return {status, status}
