-- Ends an attempt.
-- ARGV   1 id   2 attempt
--        3 outcome: 'complete', 'error' (try again while attempts are left), 'failed' (do not), 'cancelled',
--          'released' (handed back, for the worker is being stopped), or 'continued' (handed back by the work, which got
--          further)
--        4 the result or the error, as JSON, or ''
--        5 max_attempts   6 delay before the next attempt, in seconds   7 retention in seconds
--        8 the statuses that are announced, with spaces between them
--        9 max_releases: so often a job is handed back without harm; from then on it counts as a failed attempt
--        10 checkpoint as JSON, or ''   11 what the attempt has said since the last heartbeat, or ''
--        12 how many bytes it had said before   13 how many bytes are kept of what the work says
-- Reply  the job's status now, or 'refused': the job is no longer this attempt's; nothing was changed
-- Guarantee  only the holder of the current attempt ends it, once. The same call again, after an answer that was
--            lost, gets the same answer while nobody else has changed the job. A job that ends is in the outbox, if its
--            status is announced, in the same step. An attempt that does not complete its job is told of in attempts-ended,
--            but for one that is continued: that is due at once, has all its attempts again, and counts in `continued`. One
--            without a newer checkpoint counts as a failed attempt.

local id, attempt, outcome, payload = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local max_attempts, delay, retention = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local announced, max_releases = ARGV[8], tonumber(ARGV[9])
local job = holds(id, attempt, 'started-at', 'progress')
if not job then
  local latest = read_job(id, 'attempt')
  if latest and latest[1] == outcome and latest[4] == attempt then return outcome end
  count_only('late-finishes', latest and latest[3] or 'default')
  return 'refused'
end

local at = now()
write('ZREM', LEASES, id)
keep_log(id, attempt, ARGV[11], ARGV[12], tonumber(ARGV[13]))
if outcome == 'complete' then
  redis.call('HDEL', record_key(id), 'error', 'cancel-requested-at', 'cancelled-by', 'checkpoint', 'checkpoint-attempt')
  local progress = job[6] and {'progress', 1} or {}
  finish(id, job, 'complete', at, retention, announced, 'result', payload, unpack(progress))
  observe('ran', math.max(0, at - (moment(job[5]) or at)), at, job[3])
  return 'complete'
end
keep_checkpoint(id, attempt, ARGV[10])
if outcome == 'continued' then
  local so_far = redis.call('HMGET', record_key(id), 'continued', 'checkpoint-attempt', 'cancel-requested-at')
  if so_far[3] then outcome = 'cancelled'
  elseif so_far[2] == attempt then
    move(id, job, 'submitted', 'continued', whole(so_far[1]) + 1)
    redis.call('HDEL', record_key(id), 'failures', 'releases', 'error')
    write('ZADD', due_key(job[3]), at, id)
    count_only('continued', job[3])
    return 'submitted'
  end
end
if outcome == 'released' then
  local so_far = redis.call('HMGET', record_key(id), 'releases', 'cancel-requested-at')
  local releases = whole(so_far[1]) + 1
  if so_far[2] then outcome = 'cancelled'
  elseif releases <= max_releases then
    submit_again(id, job, at, 0, 'releases', releases, 'attempts-ended', with_ended(id, 'released', at))
    return 'submitted'
  end
end
if outcome == 'cancelled' then
  finish(id, job, 'cancelled', at, retention, announced, 'attempts-ended', with_ended(id, 'cancelled', at))
  return 'cancelled'
end
if outcome == 'failed' then max_attempts = 0 end
return attempt_failed(id, job, payload, at, max_attempts, delay, retention, announced)
