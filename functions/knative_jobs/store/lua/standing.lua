-- How the jobs of a kind stand.

-- Returns how many of a kind's jobs have each status, as {status, number, ...}; for how long the one that is due the longest
-- has been due; and how many of those that are submitted are due later.
local function standing(kind)
  local counts = {}
  for _, status in ipairs(statuses) do
    counts[#counts + 1] = status
    counts[#counts + 1] = read('ZCARD', index(status, kind)) or 0
  end
  local at = now()
  local function first(key) return moment((read('ZRANGE', key, 0, 0, 'WITHSCORES') or {})[2]) or at end
  local since = math.min(first(due_key(kind)), first(postponed_key(kind)))
  local delayed = read('ZCOUNT', due_key(kind), at + 0.001, '+inf') or 0
  return counts, stamp(math.max(0, at - since)), delayed
end
