-- What the scripts share: the names of keys, the clock, the moves between statuses. Before each script stands what it uses
-- of this, of render.lua, finding.lua and standing.lua, and no more, for what is not used would cost time all the same. So each
-- function or value here is a block of its own, without an empty line in it, after all that it uses.
--
-- Keys. Each begins with the constant PREFIX, which is put in front of every script and is empty by default.
--   job.<id>             hash    the record, as people read it
--   jobs.leases          zset    id -> when the lease of a job in progress ends
--   jobs.retention       zset    id -> when a job that has ended is removed
--   jobs.by-key          zset    an entry of each job that has a key, and jobs.by-submitter one of each job that was submitted
--                                with a token: <key, or name of the token> NUL <submitted-at> NUL <id>, all with the score
--                                0. So the jobs of one word are beside one another, in the order of submission
--   jobs.log.<id>        list    what the work of a job has said, in parts, the oldest first: the attempt, how many bytes it had
--                                said before, how many all attempts had said before, a line feed, the text
--   jobs.outbox          zset    id -> from when the event of a job that has ended may be emitted by whoever finds it
--   jobs.last            string  the last submitted-at given out, in microseconds
--   jobs.kinds           set     the kinds, other than `default`, that there have been jobs of
--   jobs.clock           string  the time of the last sweep: a clock that is behind it went back
--   jobs.checked         string  how far `check` has come on its round through the indexes
--   jobs.foreign.<name>  any     what was under the key jobs.<name> and is not of its type: somebody else put it there
--   idempotency.<hash>   string  what was submitted under an idempotency key
--
-- Each kind of job has keys of its own. Those of the kind `default` are named here; those of another kind have .<kind>
-- behind that name:
--   jobs.<status>        zset    id -> submitted-at; one for each status ("jobs.in-progress" for "in progress")
--   jobs.incomplete      zset    id -> submitted-at of every job whose status is not "complete"
--   jobs.due             zset    id -> from when a submitted job may be claimed: its run-at, the end of a backoff
--   jobs.postponed       zset    id -> since when a job is due that was put off, for its event was not delivered
--   jobs.announced       hash    id -> due as it is in jobs.due, how often announced, when last; with a JobSink alone. What
--                                is not due as it was then does not count any more
--   jobs.totals          hash    what happened -> how often; never reset
--                                submitted, failed, cancelled   jobs
--                                waited.*       histogram of the wait from submitted-at to the start of the first attempt
--                                ran.*          histogram of the attempts that completed their job
--                                restarted      attempts after the first
--                                retried        failed attempts that were due again, and retries that people asked for
--                                duplicates     claims of a job that was not waiting
--                                continued      attempts that the work handed back, with a newer checkpoint
--                                lease-losses   attempts taken back
--                                late-finishes  finishes refused
--                                dropped        events of submitted jobs that no process had room for
--                                swept-at       when the sweeper last looked, in whole seconds; with `default` alone
--   jobs.minute.<n>      hash    the totals as the n-th minute of the epoch began, if anything happened in it; for 2 hours
--
-- Times are seconds since the epoch by Redis's clock, so no worker's clock matters. submitted-at has microseconds and is
-- given out once, so it is both a time and a place in the order of submission. That clock may go back: then submitted-at
-- goes on from the highest that is in use, ahead of the clock, and a job is due by the clock all the same.
--
-- The record is the truth about a job, and the indexes follow from it. Any key may be missing, or hold what somebody else
-- put there; no script fails on that. `read` and `write` care for values of the wrong type, `read_job` for records.

local statuses = {'submitted', 'in progress', 'complete', 'failed', 'cancelled'}

local is_status = {submitted = true, ['in progress'] = true, complete = true, failed = true, cancelled = true}

local JOBS = PREFIX .. 'jobs.'

local LEASES, RETENTION, OUTBOX = JOBS .. 'leases', JOBS .. 'retention', JOBS .. 'outbox'

local BY_KEY, BY_SUBMITTER = JOBS .. 'by-key', JOBS .. 'by-submitter'

local LAST, KINDS, CLOCK, CHECKED = JOBS .. 'last', JOBS .. 'kinds', JOBS .. 'clock', JOBS .. 'checked'

-- Returns one of the keys that each kind has of its own.
local function key_of(name, kind)
  return kind == 'default' and JOBS .. name or JOBS .. name .. '.' .. kind
end

local function due_key(kind)
  return key_of('due', kind)
end

local function postponed_key(kind)
  return key_of('postponed', kind)
end

local function announced_key(kind)
  return key_of('announced', kind)
end

local function totals_key(kind)
  return key_of('totals', kind)
end

local function minute_key(time, kind)
  return key_of('minute.' .. math.floor(time / 60), kind)
end

-- Returns the key of a kind's index of a status, or of 'incomplete'.
local function index(status, kind)
  return key_of(status == 'in progress' and 'in-progress' or status, kind)
end

local function record_key(id)
  return PREFIX .. 'job.' .. id
end

local function log_key(id)
  return JOBS .. 'log.' .. id
end

local function is_kind(text)
  return text and #text <= 63 and text:find('^[a-z][a-z0-9-]*$')
end

local function now()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1e6
end

local function stamp(time)
  return string.format('%.6f', time)
end

-- Returns a time that was stored, or nil for what is no time.
local function moment(text)
  local time = tonumber(text)
  return time and time >= 0 and time < 1e10 and time or nil
end

-- Returns where the jobs that have a word and this submitted-at begin, in BY_KEY or BY_SUBMITTER. '' is before all times.
local function word_place(word, submitted_at)
  return word .. '\0' .. (submitted_at == '' and '' or ('%017.6f'):format(moment(submitted_at) or 0))
end

-- Returns the entries of a job in BY_KEY and BY_SUBMITTER: {index, entry, ...}. A word that the job has not is '' or false.
local function word_entries(id, submitted_at, key, submitted_by)
  local found = {}
  local function add(to, word)
    if word and word ~= '' then found[#found + 1], found[#found + 2] = to, word_place(word, submitted_at) .. '\0' .. id end
  end
  add(BY_KEY, key)
  add(BY_SUBMITTER, submitted_by)
  return found
end

-- Returns the submitted-at and the id that such an entry has; nil for what is none.
local function word_parts(entry)
  return entry:match('%z([%d.]+)%z([^%z]+)$')
end

-- Returns a count that was stored; 0 for what is none.
local function whole(text)
  local number = tonumber(text)
  return number and number >= 0 and number < 2 ^ 31 and math.floor(number) or 0
end

local function is_json_number(text)
  return text:find('^%-?%d+%.?%d*[eE]?[+-]?%d*$')
end

-- Runs a command that reads. A value of the wrong type counts as none: then the reply is nil.
local function read(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if reply.err:find('WRONGTYPE', 1, true) then return nil end
  return redis.call(command, key, ...)  -- raises the error
end

-- Returns the kinds that there may be jobs of, in an order that stays while no kind is added.
local function kinds()
  local found = {'default'}
  for _, kind in ipairs(read('SMEMBERS', KINDS) or {}) do
    if is_kind(kind) and kind ~= 'default' then found[#found + 1] = kind end
  end
  table.sort(found)
  return found
end

-- Returns where what is under one of the keys jobs.<name> goes when it is not of the key's type.
local function aside_key(key)
  return JOBS .. 'foreign.' .. key:sub(#JOBS + 1)
end

local function set_aside(key)
  redis.call('RENAME', key, aside_key(key))
end

-- Runs a command that writes one of the keys jobs.<name>. A value of the wrong type is set aside first; a count that is no
-- number begins anew; and in the place of a score that is no number comes the present time.
local function write(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  local function says(what) return reply.err:find(what, 1, true) end
  if says('WRONGTYPE') then set_aside(key) end
  if says('is not an integer') or says('overflow') then redis.call('HDEL', key, (...)) end
  if says('is not a valid float') then return redis.call(command, key, now(), select(2, ...)) end
  return redis.call(command, key, ...)
end

-- Reads a job's record: {status, submitted-at, kind, further fields ...}. Returns nil where the record is missing, is no
-- hash, or has no status.
local function read_job(id, ...)
  local fields = read('HMGET', record_key(id), 'status', 'submitted-at', 'kind', ...)
  if not (fields and fields[1]) then return nil end
  if not is_kind(fields[3]) then fields[3] = 'default' end
  return fields
end

-- Returns how many jobs of a kind are due. Those of one batch become due some microseconds one after the other.
local function due_count(kind, at)
  return read('ZCOUNT', due_key(kind), '-inf', at + 0.001) or 0
end

-- Returns an option of a job as a number: what was submitted, if that is within the operator's limit; else the limit.
local function option(text, limit)
  local number = tonumber(text)
  return number and number > 0 and number < limit and number or limit
end

-- Takes a job out of those that are due, or will be.
local function not_due(id, kind)
  write('ZREM', due_key(kind), id)
  write('ZREM', postponed_key(kind), id)
end

-- Returns how many more jobs of a kind may be in progress when `max_running` may be; 0: any number.
local function room(max_running, kind)
  return max_running == 0 and math.huge or max_running - (read('ZCARD', index('in progress', kind)) or 0)
end

-- Before the first count of a minute: keeps the totals as they were when it began.
local function turn_minute(at, kind)
  local minute = minute_key(at, kind)
  if redis.call('EXISTS', minute) == 1 then return end
  write('HINCRBY', totals_key(kind), 'submitted', 0)
  redis.call('COPY', totals_key(kind), minute)
  redis.call('EXPIRE', minute, 7200)
end

-- Counts that something happened to `n` jobs of a kind. As `observe`, it comes after the first write of a script, for up to
-- there a Redis that is full may refuse.
local function count(what, n, at, kind)
  turn_minute(at, kind)
  write('HINCRBY', totals_key(kind), what, n)
end

-- Counts what may come with no other write. A Redis that takes no writes leaves it uncounted: that must not turn an
-- answer into a fault.
local function count_only(what, kind)
  redis.pcall('HINCRBY', totals_key(kind), what, 1)
end

-- The upper bounds of the buckets of histograms, in seconds.
local bounds = {0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600}

-- Adds a duration in seconds to a kind's histogram `what`: fields <what>.le.<bound> of those up to a bound and over the one
-- before, and <what>.micros of their sum, in whole microseconds so that it stays exact.
local function observe(what, seconds, at, kind)
  turn_minute(at, kind)
  local bucket = '+Inf'
  for i = 1, #bounds do
    if seconds <= bounds[i] then
      bucket = bounds[i]
      break
    end
  end
  write('HINCRBY', totals_key(kind), what .. '.le.' .. bucket, 1)
  write('HINCRBY', totals_key(kind), what .. '.micros', math.floor(seconds * 1e6 + 0.5))
end

-- Tells those who follow the job (functions/knative_jobs/store/subscriptions.py) that its record is another.
local function changed(id)
  redis.call('PUBLISH', record_key(id), '')
end

-- Moves a job, as `read_job` returned it, to another status, in its record, with more fields and values of it, and in the
-- indexes.
local function move(id, job, to, ...)
  write('ZREM', index(job[1], job[3]), id)
  redis.call('HSET', record_key(id), 'status', to, ...)
  write('ZADD', index(to, job[3]), job[2] or '', id)
  if to == 'complete' then write('ZREM', index('incomplete', job[3]), id) end
  changed(id)
end

-- Makes a job claimable after `delay` seconds.
local function submit_again(id, job, at, delay, ...)
  move(id, job, 'submitted', ...)
  redis.call('HDEL', record_key(id), 'progress', 'progress-message')
  write('ZADD', due_key(job[3]), at + delay, id)
end

-- Ends a job: it is kept for `retention` seconds, or for less where it says so itself, and its event is in the outbox from
-- now on when `announced` names the status.
local function finish(id, job, to, at, retention, announced, ...)
  local finished_at = stamp(at)
  move(id, job, to, 'finished-at', finished_at, ...)
  write('ZADD', RETENTION, at + option(redis.call('HGET', record_key(id), 'retention'), retention), id)
  if announced:find(to, 1, true) then write('ZADD', OUTBOX, finished_at, id) end
  if to ~= 'complete' then count(to, 1, at, job[3]) end  -- the histogram `ran` has as many as are complete
end

-- Keeps what the work can go on from, as JSON, for the next attempt; `checkpoint-attempt` is the last one that got further. ''
-- is none.
local function keep_checkpoint(id, attempt, checkpoint)
  if checkpoint == '' or checkpoint == redis.call('HGET', record_key(id), 'checkpoint') then return end
  redis.call('HSET', record_key(id), 'checkpoint', checkpoint, 'checkpoint-attempt', attempt)
end

-- Returns what a part of a log holds: the attempt, how many bytes it had said before, how many all had, and the text.
local function log_part(part)
  local attempt, before, start, text = (part or ''):match('^(%d+) (%d+) (%d+)\n(.*)$')
  return tonumber(attempt), tonumber(before), tonumber(start), text
end

-- Keeps what an attempt has said after `before` bytes, unless that is kept already, and drops the oldest parts without which
-- there are still `most` bytes. What cannot be kept is lost: a log must not end an attempt.
local function keep_log(id, attempt, text, before, most)
  if text == '' then return end
  local key = log_key(id)
  local last, last_before, start, last_text = log_part(read('LINDEX', key, -1))
  local ends = last and start + #last_text or 0
  if last == tonumber(attempt) and last_before + #last_text > tonumber(before) then return end
  redis.pcall('RPUSH', key, ('%d %d %d\n'):format(attempt, before, ends) .. text)
  while true do
    local _, _, second = log_part(read('LINDEX', key, 1))
    if not second or ends + #text - second < most then break end
    redis.pcall('LPOP', key)
  end
  changed(id)
end

-- Returns the field attempts-ended of a job with one entry more, for its attempt that ends now without completing it. It has
-- the last ten. Each is of a form that needs no parsing here.
local function with_ended(id, why, at)
  local known = redis.call('HMGET', record_key(id), 'attempts-ended', 'attempt', 'started-at', 'worker-ip')
  local function plain(text) return ((text or ''):gsub('[^%w_.: -]', ''):sub(1, 60)) end
  local began, ended, worker_ip = stamp(moment(known[3]) or at), stamp(at), plain(known[4])
  local form = '{"attempt":%d,"started-at":%s,"ended-at":%s,"worker-ip":"%s","why":"%s"}'
  local entry = form:format(whole(known[2]), began, ended, worker_ip, plain(why))
  local before = (known[1] or ''):match('^%[({"attempt".*})%]$')
  if not before then return '[' .. entry .. ']' end
  local _, commas = before:gsub('},{', '')
  if commas >= 9 then before = before:match('},({.*)$') end
  return '[' .. before .. ',' .. entry .. ']'
end

-- Submits a job once more, as `read_job` returned it with its attempt and its run-at, if it is failed or cancelled; `by` is the
-- name of the caller's token, or ''. Returns whether it is, and when it is due.
local function retry_one(id, job, at, by)
  if job[1] ~= 'failed' and job[1] ~= 'cancelled' then return false end
  write('ZREM', RETENTION, id)
  write('ZREM', OUTBOX, id)
  redis.call('HDEL', record_key(id), 'failures', 'releases', 'error', 'finished-at', 'cancel-requested-at', 'cancelled-by', 'retried-by')
  local due = math.max(at, moment(job[5]) or 0)
  submit_again(id, job, due, 0)
  if by ~= '' then redis.call('HSET', record_key(id), 'retried-by', by) end
  count_only('retried', job[3])
  return true, due
end

-- Cancels a waiting job, or asks for a running one to be cancelled; `by` is the name of the caller's token, or ''. Returns
-- whether it was either, and the job's status now.
local function cancel_one(id, job, at, by, retention, announced)
  local status = job[1]
  if status ~= 'submitted' and status ~= 'in progress' then return false, status end
  if by ~= '' then redis.call('HSETNX', record_key(id), 'cancelled-by', by) end
  if status == 'submitted' then
    not_due(id, job[3])
    finish(id, job, 'cancelled', at, retention, announced)
    return true, 'cancelled'
  end
  redis.call('HSETNX', record_key(id), 'cancel-requested-at', stamp(at))
  changed(id)
  return true, status
end

-- Returns the index entries of a job that has ended, as `read_job` returned it with its key and submitted-by: {[index] = entry}.
local function ended_entries(id, job)
  local found = {[RETENTION] = id, [OUTBOX] = id, [index(job[1], job[3])] = id}
  if job[1] ~= 'complete' then found[index('incomplete', job[3])] = id end
  local words = word_entries(id, job[2], job[4], job[5])
  for n = 1, #words, 2 do found[words[n]] = words[n + 1] end
  return found
end

-- Counts an attempt that went wrong: the job is due again after `delay` seconds, or failed when that was the last of
-- `max_attempts`, or of fewer where the job says so itself, or cancelled when somebody asked for that meanwhile. Returns the
-- new status.
local function attempt_failed(id, job, failure, at, max_attempts, delay, retention, announced)
  local so_far = redis.call('HMGET', record_key(id), 'failures', 'cancel-requested-at', 'max-attempts')
  local ended = with_ended(id, failure:match('"type"%s*:%s*"([^"]*)"') or 'error', at)
  if so_far[2] then
    finish(id, job, 'cancelled', at, retention, announced, 'error', failure, 'attempts-ended', ended)
    return 'cancelled'
  end
  local failures = whole(so_far[1]) + 1
  if failures >= option(so_far[3], max_attempts) then
    finish(id, job, 'failed', at, retention, announced, 'error', failure, 'failures', failures, 'attempts-ended', ended)
    return 'failed'
  end
  submit_again(id, job, at, delay, 'error', failure, 'failures', failures, 'attempts-ended', ended)
  count_only('retried', job[3])
  return 'submitted'
end

-- Fencing: returns {status, submitted-at, kind, attempt, further fields ...} of a job where the claim with this attempt number is
-- its current one; else nil. Each claim gets the next number and none is given out twice, so the number is the token.
local function holds(id, attempt, ...)
  local job = read_job(id, 'attempt', ...)
  return job and job[1] == 'in progress' and job[4] == attempt and job
end
