-- Reads how all jobs stand, and the totals as they are and as they were when each of the last minutes began.
-- ARGV   1 how many minutes, the present one among them
-- Reply  {{status, number of jobs, ...}, seconds that the oldest waiting job has waited, {what, how often, ...},
--        the present minute of the epoch, {what, how often, ...}, ...}   one for each minute, oldest first; {} when
--        nothing was counted in it
-- Guarantee  nothing is changed; all of it is of one moment.

local counts, oldest = standing()
local minute = math.floor(now() / 60)
local reply = {counts, oldest, read('HGETALL', TOTALS) or {}, minute}
for n = minute - ARGV[1] + 1, minute do reply[#reply + 1] = read('HGETALL', minute_key(n * 60)) or {} end
return reply
