-- Finds the jobs of a kind that have been due for so long that their event must have been lost, and those that have none, for
-- they became due at a time: at their run-at, or after a backoff.
-- ARGV   1 how long, in seconds   2 the most to find   3 how many jobs of the kind may be in progress at once; 0: any number
--        4 the kind
-- Reply  {how many of its jobs are due within a minute or run, and ends of any kind are not announced yet, {id, attempts so far, record as JSON},
--        ...}, due the longest first
-- Guarantee  nothing is changed. No more are found than could be claimed now.

local kind = ARGV[4]
local due_jobs = due_key(kind)
local at = now()
local found = {read('ZCOUNT', due_jobs, '-inf', at + 60) or 0}  -- the next sweep begins within a minute
for _, key in ipairs({index('in progress', kind), OUTBOX}) do found[1] = found[1] + (read('ZCARD', key) or 0) end
local most = math.max(0, math.min(tonumber(ARGV[2]), room(tonumber(ARGV[3]), kind)))
local due = read('ZRANGE', due_jobs, '-inf', at, 'BYSCORE', 'LIMIT', 0, most, 'WITHSCORES') or {}
for i = 1, #due, 2 do
  local id, job = due[i], read_job(due[i], 'attempt', 'run-at')
  local record = job and (job[4] or job[5] or tonumber(due[i + 1]) <= at - ARGV[1]) and render(id)
  if record then found[#found + 1] = {id, whole(job[4]), record} end
end
return found
