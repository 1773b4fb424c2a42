-- Makes one step of a bulk operation: retries, or cancels, the next jobs that are asked for.
-- ARGV   1 to 7: what is asked for, as `asked_for` reads it   8 submitted-at after which to go on, or ''
--        9 the most jobs   10 'retry' or 'cancel'   11 the name of the caller's token, or ''
--        12 retention in seconds   13 the statuses that are announced, with spaces between them
--        14 the kind of bulk operations, which are none of these jobs
--        15 id of the job that is the operation, or ''; then 16 its attempt   17 its lease in seconds   18 jobs to do in all
-- Reply  {jobs done by this step; by all steps so far, where a job is the operation; submitted-at from where to go on, or ''
--        when all are done; 1 when somebody asked for the operation to be cancelled, or 0}; 'lost' when it is no longer this
--        attempt's, and nothing was changed
-- Guarantee  each of the jobs is changed as `retry` or `cancel` does it, all in this one step. Where the step ends is kept
--            in the same step, as the operation's checkpoint, and its lease is renewed. The next one goes on from there,
--            whatever its 8th argument says: so no job is done twice, and none is counted twice or not at all, whatever
--            becomes of its worker or of an answer.

local asked, cursor, most, action, by = asked_for(1), ARGV[8], tonumber(ARGV[9]), ARGV[10], ARGV[11]
local retention, announced = tonumber(ARGV[12]), ARGV[13]
local operation, attempt, lease = ARGV[15], ARGV[16], tonumber(ARGV[17])
asked.but = ARGV[14]
local held = operation ~= '' and holds(operation, attempt, 'cancel-requested-at', 'checkpoint')
if operation ~= '' and not held then return 'lost' end
local done = 0
if held then
  local after, so_far = (held[6] or ''):match('^{"after":"([%d.]*)","done":(%d+)}$')
  cursor, done = after or '', tonumber(so_far or 0)
  if held[5] or (after == '' and done > 0) then return {done, cursor, held[5] and 1 or 0} end
end

local at = now()
local after = each_asked_for(asked, cursor, most, function(id)
  local changed_one
  if action == 'retry' then
    local job = read_job(id, 'attempt', 'run-at')
    changed_one = job and retry_one(id, job, at, by)
  else
    local job = read_job(id)
    changed_one = job and cancel_one(id, job, at, by, retention, announced)
  end
  if changed_one then done = done + 1 end
end)
if held then
  local all = tonumber(ARGV[18])
  write('ZADD', LEASES, at + lease, operation)
  keep_checkpoint(operation, attempt, ('{"after":"%s","done":%d}'):format(after, done))
  local progress = ('%.4g'):format(after == '' and 1 or math.min(1, done / math.max(1, all)))
  redis.call('HSET', record_key(operation), 'progress', progress, 'progress-message', ('%d of %d jobs'):format(done, all))
  changed(operation)
end
return {done, after, 0}
