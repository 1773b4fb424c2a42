-- Reads how the jobs stand, kind by kind, and the totals as they are and as they were when each of the last minutes began.
-- ARGV   1 how many minutes, the present one among them   2 the kind, or '' for all
-- Reply  {the present minute of the epoch, {kind, {status, number of jobs, ...}, for how many seconds the job that is due
--        the longest has been due, jobs due later, {what, how often, ...}, {what, how often, ...}, ...}, ...}   the last ones
--        one for each minute, oldest first; {} when nothing was counted in it
-- Guarantee  nothing is changed; all of it is of one moment.

local minute = math.floor(now() / 60)
local reply = {minute}
for _, kind in ipairs(ARGV[2] == '' and kinds() or {ARGV[2]}) do
  local counts, oldest, delayed = standing(kind)
  local found = {kind, counts, oldest, delayed, read('HGETALL', totals_key(kind)) or {}}
  for n = minute - ARGV[1] + 1, minute do found[#found + 1] = read('HGETALL', minute_key(n * 60, kind)) or {} end
  reply[#reply + 1] = found
end
return reply
