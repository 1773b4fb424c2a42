-- Submits one job or a batch: all or none.
-- ARGV   1 max_queued: refuse while so many jobs of a kind wait
--        2 idempotency key's hash, or ''   3 fingerprint of the request   4 seconds to remember the key
--        5 submitted-by: the name of the caller's token, or ''
--        6 traceparent of the request, or ''
--        then for each job: id, kind, start, end, number-fields (which of start and end are JSON numbers; 'absent' when
--        there are neither), input as JSON or ''
-- Reply  {'submitted', kind, n, ...}  of each kind of these jobs, n are due, these among them
--        {'replayed', id, ...}        the key and the request are known: the ids given then; nothing was changed
--        {'gone'}                     the same, and none of those jobs is left; nothing was changed
--        {'reused'}                   the key is known with another request; nothing was changed
--        {'full'}                     nothing was changed
-- Guarantee  the jobs, their due entries and the key are written together. The same call again changes nothing. The jobs
--            are due now, and each has a higher submitted-at than every job before it, also after the clock went back.

local max_queued, key, fingerprint, key_seconds = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local submitted_by, traceparent = ARGV[5], ARGV[6]
local jobs = (#ARGV - 6) / 6

-- The jobs of each kind, and the kinds in the order of their first jobs.
local of, order = {}, {}
for i = 7, #ARGV, 6 do
  local kind = ARGV[i + 1]
  if not of[kind] then
    of[kind] = {n = 0, places = {}, times = {}}
    order[#order + 1] = kind
  end
  of[kind].n = of[kind].n + 1
end

local function submitted()
  local reply = {'submitted'}
  for _, kind in ipairs(order) do
    reply[#reply + 1], reply[#reply + 2] = kind, read('ZCARD', due_key(kind)) or 0
  end
  return reply
end

if redis.call('EXISTS', record_key(ARGV[7])) == 1 then return submitted() end
if key ~= '' then
  key = PREFIX .. 'idempotency.' .. key
  local known, given = (read('GET', key) or ''):match('^(%x+) ([%x -]+)$')
  if known and known ~= fingerprint then return {'reused'} end
  local reply, left = {'replayed'}, false
  for id in (given or ''):gmatch('%S+') do
    reply[#reply + 1] = id
    left = left or redis.call('EXISTS', record_key(id)) == 1
  end
  if #reply == jobs + 1 then return left and reply or {'gone'} end
end
for _, kind in ipairs(order) do
  if (read('ZCARD', index('submitted', kind)) or 0) + of[kind].n > max_queued then return {'full'} end
end

local at = now()
local micros = math.floor(at * 1e6)
local last = tonumber(read('GET', LAST))
if not last or last > micros then  -- forgotten, or the clock went back: then what counts is the highest in use
  last = 0
  for _, kind in ipairs(kinds()) do
    for _, list in ipairs({index('incomplete', kind), index('complete', kind)}) do
      local highest = read('ZRANGE', list, -1, -1, 'WITHSCORES') or {}
      last = math.max(last, math.floor((moment(highest[2]) or 0) * 1e6 + 0.5))
    end
  end
end
local place = math.max(micros, last + 1)
local ids = {}
for i = 7, #ARGV, 6 do
  local id, kind, numbers, input = ARGV[i], ARGV[i + 1], ARGV[i + 4], ARGV[i + 5]
  local submitted_at = stamp((place + #ids) / 1e6)
  local fields = {'id', id, 'status', 'submitted', 'submitted-at', submitted_at}
  local function add(field, value)
    if value ~= '' then fields[#fields + 1], fields[#fields + 2] = field, value end
  end
  if numbers ~= 'absent' then
    fields[7], fields[8], fields[9], fields[10] = 'start', ARGV[i + 2], 'end', ARGV[i + 3]
    add('number-fields', numbers)
  end
  if kind ~= 'default' then add('kind', kind) end
  add('input', input)
  add('submitted-by', submitted_by)
  add('traceparent', traceparent)
  redis.call('HSET', record_key(id), unpack(fields))
  local places, times = of[kind].places, of[kind].times
  places[#places + 1], places[#places + 2] = submitted_at, id
  times[#times + 1], times[#times + 2] = stamp((micros + #ids) / 1e6), id
  ids[#ids + 1] = id
end
for _, kind in ipairs(order) do
  write('ZADD', index('submitted', kind), unpack(of[kind].places))
  write('ZADD', index('incomplete', kind), unpack(of[kind].places))
  write('ZADD', due_key(kind), unpack(of[kind].times))
  if kind ~= 'default' then write('SADD', KINDS, kind) end
  count('submitted', of[kind].n, at, kind)
end
redis.call('SET', LAST, place + jobs - 1)
if key ~= '' then redis.call('SET', key, fingerprint .. ' ' .. table.concat(ids, ' '), 'EX', key_seconds) end
return submitted()
