-- Finds the jobs that have been due for so long that their event must have been lost, or was never sent.
-- ARGV   1 how long, in seconds   2 the most to find   3 how many jobs may be in progress at once; 0: any number
-- Reply  {jobs that wait or run, or whose end is not announced yet, {id, attempts so far, record as JSON}, ...}, due the
--        longest first
-- Guarantee  nothing is changed. No more are found than could be claimed now.

local found = {0}
for _, key in ipairs({DUE, LEASES, OUTBOX}) do found[1] = found[1] + (read('ZCARD', key) or 0) end
local most = math.max(0, math.min(tonumber(ARGV[2]), room(tonumber(ARGV[3]))))
for _, id in ipairs(read('ZRANGE', DUE, '-inf', now() - ARGV[1], 'BYSCORE', 'LIMIT', 0, most) or {}) do
  local record = render(id)
  if record then found[#found + 1] = {id, whole(redis.call('HGET', record_key(id), 'attempt')), record} end
end
return found
