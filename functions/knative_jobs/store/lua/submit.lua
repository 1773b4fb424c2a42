-- Submits one job or a batch: all or none.
-- ARGV   1 max_queued: refuse while so many jobs of a kind are due
--        2 idempotency key's hash, or ''   3 fingerprint of the request   4 seconds to remember the key
--        5 submitted-by: the name of the caller's token, or ''
--        6 traceparent of the request, or ''
--        then for each job: id, kind, start, end, number-fields (which of start and end are JSON numbers; 'absent' when
--        there are neither), input as JSON or '', options as 'name value name value', or '': delay in seconds or run-at,
--        max-attempts, timeout, retention; key, or ''
-- Reply  {'submitted', {id, run-at, ...}, kind, n, ...}   the jobs that wait for a time; and of each kind of these jobs, n are
--                                                     due, these among them
--        {'replayed', {id, run-at, ...}, id, ...}     the key and the request are known: what was given then; nothing was
--                                                     changed
--        {'gone'}       the same, and none of those jobs is left; nothing was changed
--        {'reused'}     the key is known with another request; nothing was changed
--        {'full'}       nothing was changed
--        {'past', n}    the run-at of the n-th job, from 0, is over; nothing was changed
-- Guarantee  the jobs, their entries in all indexes and the idempotency key are written together. The same call again changes nothing. A job is
--            due at its run-at, else now; and each has a higher submitted-at than every job before it, also after the clock
--            went back.

local max_queued, key, fingerprint, key_seconds = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local submitted_by, traceparent = ARGV[5], ARGV[6]
local jobs = (#ARGV - 6) / 8
local at = now()

-- The jobs of each kind, of which `due` are due now, and the kinds in the order of their first jobs.
local of, order = {}, {}
-- The options of those jobs that have some, by their place in ARGV; and when those are due that wait for a time.
local options, run_at, past = {}, {}, nil
for i = 7, #ARGV, 8 do
  local kind, said = ARGV[i + 1], ARGV[i + 6]
  local its = of[kind]
  if not its then
    its = {n = 0, due = 0, places = {}, times = {}}
    of[kind], order[#order + 1] = its, kind
  end
  its.n, its.due = its.n + 1, its.due + 1
  if said ~= '' then
    options[i] = {}
    for name, value in said:gmatch('(%S+) (%S+)') do
      if name == 'run-at' and tonumber(value) <= at then past = past or (i - 7) / 8 end
      if name == 'delay' then name, value = 'run-at', at + value end
      if name == 'run-at' then
        value = stamp(value)
        run_at[i], its.due = value, its.due - 1
      end
      table.insert(options[i], name)
      table.insert(options[i], value)
    end
  end
end

-- Returns those of these jobs, which are in Redis, that wait for a time: {id, run-at, ...}.
local function waiting(ids)
  local found = {}
  for _, id in ipairs(ids) do
    local time = moment(read('HGET', record_key(id), 'run-at'))
    if time then found[#found + 1], found[#found + 2] = id, stamp(time) end
  end
  return found
end

-- Returns the reply that the jobs are submitted; `waits` is what `waiting` returns for them.
local function submitted(waits, due)
  local reply = {'submitted', waits}
  for _, kind in ipairs(order) do reply[#reply + 1], reply[#reply + 2] = kind, due(kind) end
  return reply
end

if redis.call('EXISTS', record_key(ARGV[7])) == 1 then
  local ids = {}
  for i = 7, #ARGV, 8 do ids[#ids + 1] = ARGV[i] end
  return submitted(waiting(ids), function(kind) return due_count(kind, at) end)
end
if key ~= '' then
  key = PREFIX .. 'idempotency.' .. key
  local known, given = (read('GET', key) or ''):match('^(%x+) ([%x -]+)$')
  if known and known ~= fingerprint then return {'reused'} end
  local ids, left = {}, false
  for id in (given or ''):gmatch('%S+') do
    ids[#ids + 1] = id
    left = left or redis.call('EXISTS', record_key(id)) == 1
  end
  if #ids == jobs then return left and {'replayed', waiting(ids), unpack(ids)} or {'gone'} end
end
if past then return {'past', past} end
for _, kind in ipairs(order) do
  local its = of[kind]
  its.before = due_count(kind, at)
  if its.due > 0 and its.before + its.due > max_queued then return {'full'} end
end

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
local ids, waits = {}, {}
for i = 7, #ARGV, 8 do
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
  add('key', ARGV[i + 7])
  add('submitted-by', submitted_by)
  add('traceparent', traceparent)
  local said = options[i] or {}
  for field = 1, #said, 2 do add(said[field], said[field + 1]) end
  redis.call('HSET', record_key(id), unpack(fields))
  local places, times = of[kind].places, of[kind].times
  places[#places + 1], places[#places + 2] = submitted_at, id
  times[#times + 1], times[#times + 2] = run_at[i] or stamp((micros + #ids) / 1e6), id
  local words = word_entries(id, submitted_at, ARGV[i + 7], submitted_by)
  for n = 1, #words, 2 do write('ZADD', words[n], 0, words[n + 1]) end
  ids[#ids + 1] = id
  if run_at[i] then waits[#waits + 1], waits[#waits + 2] = id, run_at[i] end
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
return submitted(waits, function(kind) return of[kind].before + of[kind].due end)
