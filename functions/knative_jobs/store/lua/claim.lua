-- Claims one job for a worker of a kind: the named one if it is due, else the one of the kind that has been due the longest.
-- ARGV   1 id, or '' for the one due the longest   2 lease in seconds   3 worker-ip
--        4 how many jobs of the kind may be in progress at once; 0: any number   5 the kind
-- Reply  {id, attempt, failures, start, end, number-fields, input as JSON or '', traceparent, timeout or '',
--         checkpoint as JSON or ''}
--                 claimed; attempt is the fencing token; number-fields is 'absent' where there are no start and end;
--                 timeout is what the job says for itself, in seconds
--        'none'   no job of the kind is due
--        'full'   as many of its jobs are in progress as may be
-- Guarantee  no two claims get the same job with the same attempt, and none gets a job that another still holds. Never are
--            more jobs of the kind in progress than may be. No job of another kind is claimed. An entry that is due and is no waiting job is removed.

local id, lease, worker_ip, max_running, kind = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), ARGV[5]
local due_jobs = due_key(kind)
local at = now()
local at_text = stamp(at)

-- Takes a job out of those that are due. Returns it with what a claim tells of it; nil where it is no waiting job.
local function take(candidate)
  not_due(candidate, kind)
  local found = read_job(
    candidate, 'start', 'end', 'attempt', 'failures', 'number-fields', 'traceparent', 'input', 'run-at', 'timeout',
    'checkpoint'
  )
  if not found or found[1] ~= 'submitted' or found[3] ~= kind then return nil end
  return (kind ~= 'default' or (found[4] and found[5])) and found
end

local due = id ~= '' and read('ZSCORE', due_jobs, id)
-- A worker has the named job, or it has ended: its event is a duplicate, or came after another worker.
local named = id ~= '' and not due and read_job(id)
if named then count_only('duplicates', named[3]) end
if room(max_running, kind) <= 0 then
  -- With a JobSink, the Kubernetes Job of this event ends now. Whoever makes room announces the job once more.
  if due then write('HDEL', announced_key(kind), id) end
  return 'full'
end
local job = due and tonumber(due) <= at and take(id)
for _ = 1, 100 do  -- more than one only where somebody removed records
  if job then break end
  id = (read('ZRANGE', due_jobs, '-inf', at_text, 'BYSCORE', 'LIMIT', 0, 1) or {})[1]
  if not id then return 'none' end
  job = take(id)
end
if not job then return 'none' end

local attempt = whole(job[6]) + 1
move(id, job, 'in progress', 'worker-ip', worker_ip, 'started-at', at_text, 'attempt', attempt)
write('ZADD', LEASES, at + lease, id)
local since = math.max(moment(job[2]) or at, moment(job[11]) or 0)
if attempt == 1 then observe('waited', math.max(0, at - since), at, kind)
else count('restarted', 1, at, kind) end
local first, last, numbers = job[4] or '', job[5] or '', job[8] or ''
local function is_wrong(field, value) return numbers:find(field, 1, true) and not is_json_number(value) end
if numbers ~= '' and (is_wrong('start', first) or is_wrong('end', last)) then numbers = '' end
if not (job[4] or job[5]) then numbers = 'absent' end
local timeout = moment(job[12])
return {id, attempt, whole(job[7]), first, last, numbers, job[10] or '', job[9] or '', timeout and stamp(timeout) or '', job[13] or ''}
