-- Makes the indexes fit the records, a piece at each call: for somebody may have removed a key, or put something else there.
-- ARGV   1 the most index entries to look at   2 lease in seconds   3 retention in seconds
--        then the kinds that there may be jobs of
-- Reply  {{id removed, ...}, {id mended, ...}, {key of what was set aside, ...}}
-- Guarantee  an entry without a record is removed from all indexes. A job is in the indexes of its status and in no others:
--            one that waits is due, no sooner than at its run-at, one that runs has a lease, one that has ended has a
--            retention; from now on, where it had none. A value of the wrong type is set aside, and told of as long as it is
--            there. Calls that follow one another go round all indexes.

local most, lease, retention = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local at = now()
local removed, mended, foreign = {}, {}, {}
-- Kinds that had jobs and were forgotten.
for i = 4, #ARGV do
  local kind = ARGV[i]
  if kind ~= 'default' and redis.call('EXISTS', totals_key(kind)) == 1 then write('SADD', KINDS, kind) end
end

-- All indexes, and those of each kind with the ones that all kinds share.
local round, of = {LEASES, RETENTION}, {}
for _, kind in ipairs(kinds()) do
  of[kind] = {LEASES, RETENTION, index('incomplete', kind), due_key(kind), postponed_key(kind)}
  for _, status in ipairs(statuses) do
    table.insert(of[kind], index(status, kind))
  end
  for i = 3, #of[kind] do round[#round + 1] = of[kind][i] end
end

-- Returns the indexes that a job belongs to, each with the score to give it where it is missing; {} for no job.
local function places(id, job)
  if not job or not moment(job[2]) or not is_status[job[1]] then return {} end
  local status, kind = job[1], job[3]
  local found = {[index(status, kind)] = job[2]}
  if status ~= 'complete' then found[index('incomplete', kind)] = job[2] end
  if status == 'submitted' then
    found[due_key(kind)] = math.max(at, moment(job[4]) or 0)
    found[postponed_key(kind)] = read('ZSCORE', postponed_key(kind), id) or nil
  elseif status == 'in progress' then found[LEASES] = at + lease
  else found[RETENTION] = at + option(job[5], retention) end
  return found
end

-- Makes the indexes of a job's kind, and the index `key`, fit the job. Returns whether it is in that one from now on.
local function fit(id, key)
  local job = read_job(id, 'run-at', 'retention')
  local right, changes = places(id, job), 0
  local function fit_one(each)
    local score = read('ZSCORE', each, id)
    if score and not right[each] then changes = changes + write('ZREM', each, id)
    elseif right[each] and not score then changes = changes + write('ZADD', each, right[each], id) end
  end
  fit_one(key)
  if not next(right) then
    for _, each in ipairs(round) do fit_one(each) end
  else
    if not of[job[3]] then write('SADD', KINDS, job[3]) end  -- the next call goes round its indexes too
    for each in pairs(right) do fit_one(each) end
    for _, each in ipairs(of[job[3]] or {}) do fit_one(each) end
  end
  if not next(right) then
    write('ZREM', OUTBOX, id)
    removed[#removed + 1] = id
  elseif changes > 0 then
    mended[#mended + 1] = id
  end
  return right[key]
end

local types = {[LAST] = 'string', [KINDS] = 'set', [CLOCK] = 'string', [CHECKED] = 'string', [OUTBOX] = 'zset'}
for kind in pairs(of) do types[totals_key(kind)], types[announced_key(kind)] = 'hash', 'hash' end
for _, key in ipairs(round) do types[key] = 'zset' end
for key, right in pairs(types) do
  local found = redis.call('TYPE', key).ok
  if found ~= right and found ~= 'none' then set_aside(key) end
  if redis.call('EXISTS', aside_key(key)) == 1 then foreign[#foreign + 1] = aside_key(key) end
end

local nth, rank = (read('GET', CHECKED) or ''):match('^(%d+) (%d+)$')
nth, rank = whole(nth), whole(rank)
for _ = 1, #round do
  local key = round[nth % #round + 1]
  local ids = redis.call('ZRANGE', key, rank, rank + most - 1)
  for _, id in ipairs(ids) do
    if fit(id, key) then rank = rank + 1 end
  end
  most = most - #ids
  if most <= 0 then break end
  nth, rank = nth + 1, 0
end
redis.call('SET', CHECKED, nth % #round .. ' ' .. rank)
return {removed, mended, foreign}
