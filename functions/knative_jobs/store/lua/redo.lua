-- Makes one step of a bulk operation: retries, or cancels, the next jobs that are asked for.
-- ARGV   1 to 7: what is asked for, as `asked_for` reads it   8 submitted-at after which to go on, or ''
--        9 the most jobs   10 'retry' or 'cancel'   11 the name of the caller's token, or ''
--        12 retention in seconds   13 the statuses that are announced, with spaces between them
--        14 the kind of bulk operations, which are none of these jobs
--        15 id of the job that is the operation, or ''; then 16 its attempt   17 its lease in seconds
--        18 jobs done before this step   19 jobs to do in all
-- Reply  {jobs done, submitted-at from where to go on or '' when all are done, 1 when somebody asked for the operation to be
--        cancelled or 0}; 'lost' when it is no longer this attempt's, and nothing was changed
-- Guarantee  each of the jobs is changed as `retry` or `cancel` does it, all in this one step. Where the step ends is kept
--            in the same step, as the operation's checkpoint, and its lease is renewed: so no job is done twice, whatever
--            becomes of its worker.

local asked, cursor, most, action, by = asked_for(1), ARGV[8], tonumber(ARGV[9]), ARGV[10], ARGV[11]
local retention, announced = tonumber(ARGV[12]), ARGV[13]
local operation, attempt, lease = ARGV[15], ARGV[16], tonumber(ARGV[17])
asked.but = ARGV[14]
local held = operation ~= '' and holds(operation, attempt, 'cancel-requested-at')
if operation ~= '' and not held then return 'lost' end
if held and held[5] then return {0, cursor, 1} end

local at, n = now(), 0
local after = each_asked_for(asked, cursor, most, function(id)
  local changed_one
  if action == 'retry' then
    local job = read_job(id, 'attempt', 'run-at')
    changed_one = job and retry_one(id, job, at, by)
  else
    local job = read_job(id)
    changed_one = job and cancel_one(id, job, at, by, retention, announced)
  end
  if changed_one then n = n + 1 end
end)
if held then
  local done, all = ARGV[18] + n, tonumber(ARGV[19])
  write('ZADD', LEASES, at + lease, operation)
  keep_checkpoint(operation, attempt, ('{"after":"%s","done":%d}'):format(after, done))
  local progress = ('%.4g'):format(after == '' and 1 or math.min(1, done / math.max(1, all)))
  redis.call('HSET', record_key(operation), 'progress', progress, 'progress-message', ('%d of %d jobs'):format(done, all))
  changed(operation)
end
return {n, after, 0}
