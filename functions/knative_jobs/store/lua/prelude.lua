-- What the scripts share: the names of keys, the clock, the moves between statuses. It stands before each of them.
-- render.lua and standing.lua come after it where a script calls them: what it does not need would cost time all the same.
--
-- Keys (a job's keys have no hash tag in common, so this is for one Redis, not for a Redis Cluster):
--   job.<id>             hash    the record, as people read it
--   jobs.<status>        zset    id -> submitted-at; one for each status ("jobs.in-progress" for "in progress")
--   jobs.incomplete      zset    id -> submitted-at of every job whose status is not "complete"
--   jobs.due             zset    id -> from when a submitted job may be claimed
--   jobs.announced       hash    id -> due as it is in jobs.due, how often announced, when last; with a JobSink alone. What
--                                is not due as it was then does not count any more
--   jobs.leases          zset    id -> when the lease of a job in progress ends
--   jobs.retention       zset    id -> when a job that has ended is removed
--   jobs.outbox          zset    id -> from when the event of a job that has ended may be emitted by whoever finds it
--   jobs.last            string  the last submitted-at given out, in microseconds
--   jobs.totals          hash    what happened -> how often; never reset
--                                submitted, failed, cancelled   jobs
--                                waited.*       histogram of the wait from submitted-at to the start of the first attempt
--                                ran.*          histogram of the attempts that completed their job
--                                restarted      attempts after the first
--                                retried        failed attempts that were due again, and retries that people asked for
--                                duplicates     claims of a job that was not waiting
--                                lease-losses   attempts taken back
--                                late-finishes  finishes refused
--                                swept-at       when the sweeper last looked, in whole seconds
--   jobs.minute.<n>      hash    the totals as the n-th minute of the epoch began, if anything happened in it; for 2 hours
--   idempotency.<hash>   string  what was submitted under an idempotency key
--
-- Times are seconds since the epoch by Redis's clock, so no worker's clock matters. submitted-at has microseconds
-- and is given out once, so it is both a time and a place in the order of submission.

local function now()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1e6
end

local function stamp(time)
  return string.format('%.6f', time)
end

local function record_key(id)
  return 'job.' .. id
end

local function minute_key(time)
  return 'jobs.minute.' .. math.floor(time / 60)
end

local function index(status)
  return 'jobs.' .. (status:gsub(' ', '-'))
end

-- Before the first count of a minute: keeps the totals as they were when it began.
local function turn_minute(at)
  local minute = minute_key(at)
  if redis.call('EXISTS', minute) == 1 then return end
  redis.call('HINCRBY', 'jobs.totals', 'submitted', 0)
  redis.call('COPY', 'jobs.totals', minute)
  redis.call('EXPIRE', minute, 7200)
end

-- Counts that something happened to `n` jobs. As `observe`, it comes after the first write of a script, for up to there
-- a Redis that is full may refuse.
local function count(what, n, at)
  turn_minute(at)
  redis.call('HINCRBY', 'jobs.totals', what, n)
end

-- Counts what may come with no other write. A Redis that takes no writes leaves it uncounted: that must not turn an
-- answer into a fault.
local function count_only(what)
  redis.pcall('HINCRBY', 'jobs.totals', what, 1)
end

-- Adds a duration in seconds to the histogram `what`: fields <what>.le.<bound> of those up to a bound and over the one
-- before, and <what>.micros of their sum, in whole microseconds so that it stays exact.
local bounds = {0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600}
local function observe(what, seconds, at)
  turn_minute(at)
  local bucket = '+Inf'
  for i = 1, #bounds do
    if seconds <= bounds[i] then
      bucket = bounds[i]
      break
    end
  end
  redis.call('HINCRBY', 'jobs.totals', what .. '.le.' .. bucket, 1)
  redis.call('HINCRBY', 'jobs.totals', what .. '.micros', math.floor(seconds * 1e6 + 0.5))
end

-- Tells those who follow the job (functions/knative_jobs/store/subscriptions.py) that its record is another.
local function changed(id)
  redis.call('PUBLISH', record_key(id), '')
end

-- Moves a job from one status to another, in its record, with more fields and values of it, and in the indexes. Returns
-- its submitted-at.
local function move(id, from, to, ...)
  local place = redis.call('HGET', record_key(id), 'submitted-at')
  redis.call('ZREM', index(from), id)
  redis.call('HSET', record_key(id), 'status', to, ...)
  redis.call('ZADD', index(to), place, id)
  if to == 'complete' then redis.call('ZREM', 'jobs.incomplete', id) end
  changed(id)
  return place
end

-- Makes a job claimable after `delay` seconds.
local function submit_again(id, from, at, delay)
  move(id, from, 'submitted')
  redis.call('HDEL', record_key(id), 'progress', 'progress-message')
  redis.call('ZADD', 'jobs.due', at + delay, id)
end

-- Ends a job: it is kept for `retention` seconds, and its event is in the outbox from now on when `announced` names the
-- status.
local function finish(id, from, to, at, retention, announced, ...)
  move(id, from, to, 'finished-at', stamp(at), ...)
  redis.call('ZADD', 'jobs.retention', at + retention, id)
  if announced:find(to, 1, true) then redis.call('ZADD', 'jobs.outbox', at, id) end
  if to ~= 'complete' then count(to, 1, at) end  -- the histogram `ran` has as many as are complete
end

-- Counts an attempt that went wrong: the job is due again after `delay` seconds, or failed when that was the last of
-- `max_attempts`, or cancelled when somebody asked for that meanwhile. Returns the new status.
local function attempt_failed(id, failure, at, max_attempts, delay, retention, announced)
  redis.call('HSET', record_key(id), 'error', failure)
  if redis.call('HEXISTS', record_key(id), 'cancel-requested-at') == 1 then
    finish(id, 'in progress', 'cancelled', at, retention, announced)
    return 'cancelled'
  end
  if redis.call('HINCRBY', record_key(id), 'failures', 1) >= max_attempts then
    finish(id, 'in progress', 'failed', at, retention, announced)
    return 'failed'
  end
  submit_again(id, 'in progress', at, delay)
  count_only('retried')
  return 'submitted'
end

-- Fencing: whether the claim with this attempt number is the job's current one. Each claim gets the next number and
-- none is given out twice, so the number is the token. Returns started-at where it is.
local function holds(id, attempt)
  local current = redis.call('HMGET', record_key(id), 'status', 'attempt', 'started-at')
  return current[1] == 'in progress' and current[2] == attempt and current[3]
end
