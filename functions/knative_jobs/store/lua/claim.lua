-- Claims one job for a worker: the named one if it is due, else the one that has been due the longest.
-- ARGV   1 id, or '' for the one due the longest   2 lease in seconds   3 worker-ip
--        4 how many jobs may be in progress at once; 0: any number
-- Reply  {id, attempt, failures, start, end, number-fields, traceparent}   claimed; attempt is the fencing token
--        'none'   no job is due
--        'full'   as many jobs are in progress as may be
-- Guarantee  no two claims get the same job with the same attempt, and none gets a job that another still holds. There are
--            never more leases than jobs that may be in progress. An entry that is due and is no waiting job is removed.

local id, lease, worker_ip, max_running = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local at = now()
local at_text = stamp(at)

-- Takes a job out of those that are due. Returns it with what a claim tells of it; nil where it is no waiting job.
local function take(candidate)
  write('ZREM', DUE, candidate)
  local found = read_job(candidate, 'start', 'end', 'attempt', 'failures', 'number-fields', 'traceparent')
  return found and found[1] == 'submitted' and found[3] and found[4] and found
end

local due = id ~= '' and read('ZSCORE', DUE, id)
-- A worker has the named job, or it has ended: its event is a duplicate, or came after another worker.
if id ~= '' and not due and read_job(id) then count_only('duplicates') end
if room(max_running) <= 0 then
  -- With a JobSink, the Kubernetes Job of this event ends now. Whoever makes room announces the job once more.
  if due then write('HDEL', ANNOUNCED, id) end
  return 'full'
end
local job = due and tonumber(due) <= at and take(id)
for _ = 1, 100 do  -- more than one only where somebody removed records
  if job then break end
  id = (read('ZRANGE', DUE, '-inf', at_text, 'BYSCORE', 'LIMIT', 0, 1) or {})[1]
  if not id then return 'none' end
  job = take(id)
end
if not job then return 'none' end

local attempt = whole(job[5]) + 1
move(id, job, 'in progress', 'worker-ip', worker_ip, 'started-at', at_text, 'attempt', attempt)
write('ZADD', LEASES, at + lease, id)
if attempt == 1 then observe('waited', math.max(0, at - (moment(job[2]) or at)), at) else count('restarted', 1, at) end
local numbers = job[7] or ''
local function is_wrong(field, value) return numbers:find(field, 1, true) and not is_json_number(value) end
if numbers ~= '' and (is_wrong('start', job[3]) or is_wrong('end', job[4])) then numbers = '' end
return {id, attempt, whole(job[6]), job[3], job[4], numbers, job[8] or ''}
