-- Notices that the clock went back since the last sweep, and moves what waits for a time with it.
-- ARGV   1 lease   2 visibility timeout of the outbox   3 retention; all in seconds
-- Reply  by how many seconds the clock went back, as text; '0' when it did not
-- Guarantee  a waiting job is due no later than it would have been, and no sooner than at its run-at; a job whose
--            worker is gone is taken back no later than a lease from now, an end is announced no later than the visibility
--            timeout from now, and a job that has ended is kept no longer than its retention.

local at = now()
local last = moment(read('GET', CLOCK)) or 0
redis.call('SET', CLOCK, stamp(at))
local back = last - at
if back < 1 then return '0' end

-- Passes the members of an index that are scored later than `after`, with their scores.
local function later(key, after)
  local found = read('ZRANGE', key, '(' .. stamp(after), '+inf', 'BYSCORE', 'WITHSCORES') or {}
  local i = -1
  return function()
    i = i + 2
    return found[i], tonumber(found[i + 1])
  end
end

for _, kind in ipairs(kinds()) do
  local key = due_key(kind)
  for id, due in later(key, at + 0.001) do
    write('ZADD', key, math.max(due - back, moment(read('HGET', record_key(id), 'run-at')) or 0), id)
  end
end
for id in later(LEASES, at + ARGV[1]) do write('ZADD', LEASES, at + ARGV[1], id) end
for id in later(OUTBOX, at + ARGV[2]) do write('ZADD', OUTBOX, at + ARGV[2], id) end
for id, ends in later(RETENTION, at + ARGV[3]) do write('ZADD', RETENTION, ends - back, id) end
return stamp(back)
