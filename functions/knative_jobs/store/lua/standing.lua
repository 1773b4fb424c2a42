-- How all jobs stand.

-- Returns how many jobs have each status, as {status, number, ...}, and for how long the oldest waiting one has waited.
local function standing()
  local counts = {}
  for _, status in ipairs({'submitted', 'in progress', 'complete', 'failed', 'cancelled'}) do
    counts[#counts + 1] = status
    counts[#counts + 1] = redis.call('ZCARD', index(status))
  end
  local oldest = redis.call('ZRANGE', 'jobs.submitted', 0, 0, 'WITHSCORES')[2]
  return counts, stamp(oldest and math.max(0, now() - oldest) or 0)
end
