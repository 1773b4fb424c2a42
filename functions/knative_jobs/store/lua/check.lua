-- Makes the indexes fit the records, a piece at each call: for somebody may have removed a key, or put something else there.
-- ARGV   1 the most index entries to look at   2 lease in seconds   3 retention in seconds
-- Reply  {{id removed, ...}, {id mended, ...}, {key of what was set aside, ...}}
-- Guarantee  an entry without a record is removed from all indexes. A job is in the indexes of its status and in no others:
--            one that waits is due, one that runs has a lease, one that has ended has a retention; from now on, where it had
--            none. A value of the wrong type is set aside, and told of as long as it is there. Calls that follow one another
--            go round all indexes.

local most, lease, retention = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local at = now()
local removed, mended, foreign = {}, {}, {}
local round = {INCOMPLETE, DUE, LEASES, RETENTION}
for _, status in ipairs({'submitted', 'in progress', 'complete', 'failed', 'cancelled'}) do
  round[#round + 1] = index(status)
  round[index(status)] = true
end

-- Returns the indexes that a job belongs to, each with the score to give it where it is missing; {} for no job.
local function places(job)
  if not job or not moment(job[2]) or not round[index(job[1])] then return {} end
  local found, status = {[index(job[1])] = job[2]}, job[1]
  if status ~= 'complete' then found[INCOMPLETE] = job[2] end
  if status == 'submitted' then found[DUE] = at
  elseif status == 'in progress' then found[LEASES] = at + lease
  else found[RETENTION] = at + retention end
  return found
end

-- Makes the indexes fit a job. Returns whether it is in the index `key` from now on.
local function fit(id, key)
  local right, changes = places(read_job(id)), 0
  for _, each in ipairs(round) do
    local score = read('ZSCORE', each, id)
    if score and not right[each] then changes = changes + write('ZREM', each, id)
    elseif right[each] and not score then changes = changes + write('ZADD', each, right[each], id) end
  end
  if not next(right) then
    write('ZREM', OUTBOX, id)
    removed[#removed + 1] = id
  elseif changes > 0 then
    mended[#mended + 1] = id
  end
  return right[key]
end

local types = {[TOTALS] = 'hash', [ANNOUNCED] = 'hash', [LAST] = 'string', [CLOCK] = 'string', [CHECKED] = 'string', [OUTBOX] = 'zset'}
for _, key in ipairs(round) do types[key] = 'zset' end
for key, kind in pairs(types) do
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then set_aside(key) end
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
