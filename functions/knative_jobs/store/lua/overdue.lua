-- Finds the jobs of a kind that have been due for so long that their event must have been lost, or was never sent.
-- ARGV   1 how long, in seconds   2 the most to find   3 how many jobs of the kind may be in progress at once; 0: any number
--        4 the kind
-- Reply  {how many of its jobs wait or run, and ends of any kind are not announced yet, {id, attempts so far, record as JSON},
--        ...}, due the longest first
-- Guarantee  nothing is changed. No more are found than could be claimed now.

local kind = ARGV[4]
local due_jobs = due_key(kind)
local found = {0}
for _, key in ipairs({due_jobs, index('in progress', kind), OUTBOX}) do found[1] = found[1] + (read('ZCARD', key) or 0) end
local most = math.max(0, math.min(tonumber(ARGV[2]), room(tonumber(ARGV[3]), kind)))
for _, id in ipairs(read('ZRANGE', due_jobs, '-inf', now() - ARGV[1], 'BYSCORE', 'LIMIT', 0, most) or {}) do
  local record = render(id)
  if record then found[#found + 1] = {id, whole(redis.call('HGET', record_key(id), 'attempt')), record} end
end
return found
