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
local removed, mended, foreign, is_removed = {}, {}, {}, {}
-- Kinds that had jobs and were forgotten.
for i = 4, #ARGV do
  local kind = ARGV[i]
  if kind ~= 'default' and redis.call('EXISTS', totals_key(kind)) == 1 then write('SADD', KINDS, kind) end
end

-- All indexes, and those of each kind with the ones that all kinds share.
local round, of = {LEASES, RETENTION, BY_KEY, BY_SUBMITTER}, {}
for _, kind in ipairs(kinds()) do
  of[kind] = {LEASES, RETENTION, index('incomplete', kind), due_key(kind), postponed_key(kind)}
  for _, status in ipairs(statuses) do
    table.insert(of[kind], index(status, kind))
  end
  for i = 3, #of[kind] do round[#round + 1] = of[kind][i] end
end

-- Returns the indexes that a job belongs to, each with its entry there and the score to give that where it is missing; {} for
-- no job.
local function places(id, job)
  if not job or not moment(job[2]) or not is_status[job[1]] then return {} end
  local status, kind = job[1], job[3]
  local found = {[index(status, kind)] = {id, job[2]}}
  if status ~= 'complete' then found[index('incomplete', kind)] = {id, job[2]} end
  if status == 'submitted' then
    found[due_key(kind)] = {id, math.max(at, moment(job[4]) or 0)}
    local since = read('ZSCORE', postponed_key(kind), id)
    if since then found[postponed_key(kind)] = {id, since} end
  elseif status == 'in progress' then found[LEASES] = {id, at + lease}
  else found[RETENTION] = {id, at + option(job[5], retention)} end
  local words = word_entries(id, job[2], job[6], job[7])
  for n = 1, #words, 2 do found[words[n]] = {words[n + 1], 0} end
  return found
end

-- Makes the indexes of a job's kind, and the index `key`, which has `entry`, fit the job. Returns whether the entry is still
-- there.
local function fit(entry, key)
  local id = entry
  if key == BY_KEY or key == BY_SUBMITTER then id = select(2, word_parts(entry)) or entry end
  local job = read_job(id, 'run-at', 'retention', 'key', 'submitted-by')
  local right, changes = places(id, job), 0
  local function fit_one(each, its)
    local place = right[each]
    if not (place and place[1] == its) and read('ZSCORE', each, its) then changes = changes + write('ZREM', each, its) end
    if place and not read('ZSCORE', each, place[1]) then changes = changes + write('ZADD', each, place[2], place[1]) end
  end
  fit_one(key, entry)
  if not next(right) then
    for _, each in ipairs(round) do fit_one(each, id) end
  else
    if not of[job[3]] then write('SADD', KINDS, job[3]) end  -- the next call goes round its indexes too
    for each, place in pairs(right) do fit_one(each, place[1]) end
    for _, each in ipairs(of[job[3]] or {}) do fit_one(each, id) end
  end
  if not next(right) then
    write('ZREM', OUTBOX, id)
    redis.call('DEL', log_key(id))
    if not is_removed[id] then removed[#removed + 1] = id end
    is_removed[id] = true
  elseif changes > 0 then
    mended[#mended + 1] = id
  end
  return right[key] and right[key][1] == entry
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
