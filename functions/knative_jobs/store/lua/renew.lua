-- The heartbeat of a running job: renews its lease, and records progress, a checkpoint, and what the work has said.
-- ARGV   1 id   2 attempt   3 lease in seconds   4 progress from 0 to 1, or ''   5 progress-message
--        6 checkpoint as JSON, or ''   7 what the attempt has said, or ''   8 how many bytes it had said before
--        9 how many bytes are kept of what the work says
-- Reply  'renewed'
--        'cancel'   renewed, and somebody asked for the job to be cancelled
--        'lost'     the job is no longer this attempt's; nothing was changed
-- Guarantee  only the holder of the current attempt renews.

local id, attempt, lease, progress, message = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local job = holds(id, attempt, 'cancel-requested-at')
if not job then return 'lost' end

write('ZADD', LEASES, now() + lease, id)
keep_checkpoint(id, attempt, ARGV[6])
keep_log(id, attempt, ARGV[7], ARGV[8], tonumber(ARGV[9]))
if progress ~= '' then
  redis.call('HSET', record_key(id), 'progress', progress, 'progress-message', message)
  changed(id)
end
return job[5] and 'cancel' or 'renewed'
