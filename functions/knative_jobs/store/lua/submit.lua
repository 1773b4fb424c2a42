-- Submits one job or a batch: all or none.
-- ARGV   1 max_queued: refuse while so many jobs wait
--        2 idempotency key's hash, or ''   3 fingerprint of the request   4 seconds to remember the key
--        5 submitted-by: the name of the caller's token, or ''
--        6 traceparent of the request, or ''
--        then for each job: id, start, end, number-fields (which of start and end are JSON numbers)
-- Reply  {'submitted', n}       n jobs are due, these among them
--        {'replayed', id, ...}  the key and the request are known: the ids given then; nothing was changed
--        {'gone'}               the same, and none of those jobs is left; nothing was changed
--        {'reused'}             the key is known with another request; nothing was changed
--        {'full'}               nothing was changed
-- Guarantee  the jobs, their due entries and the key are written together. The same call again changes nothing. The jobs
--            are due now, and each has a higher submitted-at than every job before it, also after the clock went back.

local max_queued, key, fingerprint, key_seconds = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local submitted_by, traceparent = ARGV[5], ARGV[6]
local jobs = (#ARGV - 6) / 4

if redis.call('EXISTS', record_key(ARGV[7])) == 1 then return {'submitted', read('ZCARD', DUE) or 0} end
if key ~= '' then
  key = 'idempotency.' .. key
  local known, given = (read('GET', key) or ''):match('^(%x+) ([%x -]+)$')
  if known and known ~= fingerprint then return {'reused'} end
  local reply, left = {'replayed'}, false
  for id in (given or ''):gmatch('%S+') do
    reply[#reply + 1] = id
    left = left or redis.call('EXISTS', record_key(id)) == 1
  end
  if #reply == jobs + 1 then return left and reply or {'gone'} end
end
if (read('ZCARD', index('submitted')) or 0) + jobs > max_queued then return {'full'} end

local at = now()
local micros = math.floor(at * 1e6)
local last = tonumber(read('GET', LAST))
if not last or last > micros then  -- forgotten, or the clock went back: then what counts is the highest in use
  last = 0
  for _, list in ipairs({INCOMPLETE, index('complete')}) do
    local highest = read('ZRANGE', list, -1, -1, 'WITHSCORES') or {}
    last = math.max(last, math.floor((moment(highest[2]) or 0) * 1e6 + 0.5))
  end
end
local place = math.max(micros, last + 1)
local places, ids = {}, {}
local times = place == micros and places or {}
for i = 7, #ARGV, 4 do
  local id, numbers = ARGV[i], ARGV[i + 3]
  local submitted_at = stamp((place + #ids) / 1e6)
  redis.call('HSET', record_key(id), 'id', id, 'status', 'submitted', 'start', ARGV[i + 1], 'end', ARGV[i + 2],
    'submitted-at', submitted_at)
  if submitted_by ~= '' then redis.call('HSET', record_key(id), 'submitted-by', submitted_by) end
  if traceparent ~= '' then redis.call('HSET', record_key(id), 'traceparent', traceparent) end
  if numbers ~= '' then redis.call('HSET', record_key(id), 'number-fields', numbers) end
  places[#places + 1], places[#places + 2] = submitted_at, id
  if times ~= places then times[#times + 1], times[#times + 2] = stamp((micros + #ids) / 1e6), id end
  ids[#ids + 1] = id
end
write('ZADD', index('submitted'), unpack(places))
write('ZADD', INCOMPLETE, unpack(places))
write('ZADD', DUE, unpack(times))
count('submitted', jobs, at)
redis.call('SET', LAST, place + jobs - 1)
if key ~= '' then redis.call('SET', key, fingerprint .. ' ' .. table.concat(ids, ' '), 'EX', key_seconds) end
return {'submitted', read('ZCARD', DUE) or 0}
