-- Counts the jobs that a bulk operation is about.
-- ARGV   1 to 7: what is asked for, as `asked_for` reads it   8 submitted-at after which to count, or ''
--        9 the kind of bulk operations, which are none of these jobs
-- Reply  {number of jobs, submitted-at from where to go on, or '' when all are counted, a time after the submitted-at of all
--        jobs}
-- Guarantee  nothing is changed.

local asked, cursor = asked_for(1), ARGV[8]
asked.but = ARGV[9]
local later = stamp(math.max(now(), (tonumber(read('GET', LAST)) or 0) / 1e6 + 1e-6))
if not asked.is_narrow then
  asked.counts = true
  local _, n = by_status(asked)
  return {n, '', later}
end
local n = 0
local after = each_asked_for(asked, cursor, math.huge, function() n = n + 1 end)
return {n, after, later}
