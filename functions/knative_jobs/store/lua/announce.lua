-- Chooses the due jobs of a kind that are to be announced to a JobSink, oldest first, and notes that they are announced.
-- ARGV   1 the most jobs that may be announced and not claimed   2 announce one again after so many seconds
--        3 the longest such interval: it doubles with each announcement
--        4 how many jobs of the kind may be in progress at once; 0: any number   5 the kind
-- Reply  {{id, attempts so far, record as JSON}, ...}
-- Guarantee  each job is chosen once when it has become due and there is room, and again only after the interval. No more are
--            announced and not claimed than could be claimed now. A job that is due anew (handed back, retried, postponed,
--            taken back) counts as never announced.

local most, first, longest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local kind = ARGV[5]
local at = now()
local due_jobs, announced_jobs = due_key(kind), announced_key(kind)
local may_begin = room(tonumber(ARGV[4]), kind)
most = math.min(most, may_begin)
local chosen, announced, pending = {}, {}, 0

-- Returns whether the job is chosen: one without a record is not.
local function choose(id, due, times)
  local job, record = read_job(id, 'attempt'), render(id)
  if not record then return false end
  write('HSET', announced_jobs, id, due .. ' ' .. times .. ' ' .. stamp(at))
  chosen[#chosen + 1] = {id, whole(job[4]), record}
  return true
end

-- Who claims a job does not touch this hash, so what is not due as it was when it was announced is removed here.
local noted = read('HGETALL', announced_jobs) or {}
for i = 1, #noted, 2 do
  local id = noted[i]
  local due, times, last = noted[i + 1]:match('^(%S+) (%d+) (%d+%.?%d*)$')
  if not due or read('ZSCORE', due_jobs, id) ~= due then
    write('HDEL', announced_jobs, id)
  else
    announced[id] = true
    pending = pending + 1
    local since = at - last  -- less than 0 where the clock went back
    local again = since < 0 or since >= math.min(first * 2 ^ (times - 1), longest)
    if again and #chosen < may_begin then choose(id, due, times + 1) end
  end
end

-- Those that are announced may all be among the first, so this looks at no more than `most`.
for _, id in ipairs(read('ZRANGE', due_jobs, '-inf', at, 'BYSCORE', 'LIMIT', 0, math.max(0, most)) or {}) do
  if pending >= most then break end
  if not announced[id] and choose(id, redis.call('ZSCORE', due_jobs, id), 1) then pending = pending + 1 end
end
return chosen
