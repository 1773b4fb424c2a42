-- How the jobs of a kind stand.

-- Returns how many of a kind's jobs have each status, as {status, number, ...}, and for how long the oldest waiting one has
-- waited.
local function standing(kind)
  local counts = {}
  for _, status in ipairs(statuses) do
    counts[#counts + 1] = status
    counts[#counts + 1] = read('ZCARD', index(status, kind)) or 0
  end
  local at = now()
  local since = at
  local oldest = read('ZRANGE', index('submitted', kind), 0, 0) or {}
  if oldest[1] then
    local first_due = read('ZRANGE', due_key(kind), 0, 0, 'WITHSCORES') or {}
    -- No job is due before it is submitted, and a submitted-at may be ahead of a clock that went back.
    since = moment(read('HGET', record_key(oldest[1]), 'submitted-at')) or at
    since = math.min(since, moment(first_due[2]) or at)
  end
  return counts, stamp(math.max(0, at - since))
end
