-- Ends an attempt.
-- ARGV   1 id   2 attempt
--        3 outcome: 'complete', 'error' (try again while attempts are left), 'failed' (do not), 'cancelled',
--          or 'released' (handed back, as if it had not begun: no failure is counted)
--        4 the result or the error, as JSON, or ''
--        5 max_attempts   6 delay before the next attempt, in seconds   7 retention in seconds
--        8 the statuses that are announced, with spaces between them
-- Reply  the job's status now, or 'refused': the job is no longer this attempt's; nothing was changed
-- Guarantee  only the holder of the current attempt ends it, once. The same call again, after an answer that was
--            lost, gets the same answer while nobody else has changed the job. A job that ends is in the outbox, if its
--            status is announced, in the same step.

local id, attempt, outcome, payload = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local max_attempts, delay, retention = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local announced = ARGV[8]
local job = holds(id, attempt, 'started-at', 'progress')
if not job then
  local latest = read_job(id, 'attempt')
  if latest and latest[1] == outcome and latest[3] == attempt then return outcome end
  count_only('late-finishes')
  return 'refused'
end

local at = now()
write('ZREM', LEASES, id)
if outcome == 'complete' then
  redis.call('HDEL', record_key(id), 'error', 'cancel-requested-at')
  local progress = job[5] and {'progress', 1} or {}
  finish(id, job, 'complete', at, retention, announced, 'result', payload, unpack(progress))
  observe('ran', math.max(0, at - (moment(job[4]) or at)), at)
  return 'complete'
end
if outcome == 'cancelled' then
  finish(id, job, 'cancelled', at, retention, announced)
  return 'cancelled'
end
if outcome == 'released' then
  submit_again(id, job, at, 0)
  return 'submitted'
end
if outcome == 'failed' then max_attempts = 0 end
return attempt_failed(id, job, payload, at, max_attempts, delay, retention, announced)
