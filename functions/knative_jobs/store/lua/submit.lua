-- Submits one job or a batch: all or none.
-- ARGV   1 max_queued: refuse while so many jobs wait
--        2 idempotency key's hash, or ''   3 fingerprint of the request   4 seconds to remember the key
--        5 submitted-by: the name of the caller's token, or ''
--        6 traceparent of the request, or ''
--        then for each job: id, start, end, number-fields (which of start and end are JSON numbers)
-- Reply  {'submitted', n}       n jobs are due, these among them
--        {'replayed', id, ...}  the key and the request are known: the ids given then; nothing was changed
--        {'reused'}             the key is known with another request; nothing was changed
--        {'full'}               nothing was changed
-- Guarantee  the jobs, their due entries and the key are written together. The same call again changes nothing.

local max_queued, key, fingerprint, key_seconds = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local submitted_by, traceparent = ARGV[5], ARGV[6]

if redis.call('EXISTS', record_key(ARGV[7])) == 1 then return {'submitted', redis.call('ZCARD', 'jobs.due')} end
if key ~= '' then
  local known = redis.call('GET', 'idempotency.' .. key)
  if known then
    local words = {}
    for word in known:gmatch('%S+') do words[#words + 1] = word end
    if words[1] ~= fingerprint then return {'reused'} end
    words[1] = 'replayed'
    return words
  end
end
local jobs = (#ARGV - 6) / 4
if redis.call('ZCARD', 'jobs.submitted') + jobs > max_queued then return {'full'} end

local at = now()
local micros = math.max(math.floor(at * 1e6), (redis.call('GET', 'jobs.last') or 0) + 1)
local ids = {}
for i = 7, #ARGV, 4 do
  local id, numbers = ARGV[i], ARGV[i + 3]
  local submitted_at = stamp(micros / 1e6)
  redis.call('HSET', record_key(id), 'id', id, 'status', 'submitted', 'start', ARGV[i + 1], 'end', ARGV[i + 2],
    'submitted-at', submitted_at)
  if submitted_by ~= '' then redis.call('HSET', record_key(id), 'submitted-by', submitted_by) end
  if traceparent ~= '' then redis.call('HSET', record_key(id), 'traceparent', traceparent) end
  if numbers ~= '' then redis.call('HSET', record_key(id), 'number-fields', numbers) end
  redis.call('ZADD', 'jobs.submitted', submitted_at, id)
  redis.call('ZADD', 'jobs.incomplete', submitted_at, id)
  redis.call('ZADD', 'jobs.due', submitted_at, id)
  ids[#ids + 1] = id
  micros = micros + 1
end
count('submitted', jobs, at)
redis.call('SET', 'jobs.last', string.format('%.0f', micros - 1))
if key ~= '' then
  redis.call('SET', 'idempotency.' .. key, fingerprint .. ' ' .. table.concat(ids, ' '), 'EX', key_seconds)
end
return {'submitted', redis.call('ZCARD', 'jobs.due')}
