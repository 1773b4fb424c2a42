-- Reads how the jobs stand and what happened so far, kind by kind, and whether Redis can take more.
-- Reply  {the bounds of the histograms in seconds, with spaces between them, bytes of memory that Redis uses, the most it may
--        use or 0, 1 when it takes writes or 0, {kind, {status, number of jobs, ...}, for how many seconds the job that is
--        due the longest has been due, jobs due later, {what, how often, ...}}, ...}
-- Guarantee  nothing is changed; all of it is of one moment.

-- Redis refuses writes when its memory is full, when it could not write its append-only file, and as a replica.
local told = redis.call('INFO', 'memory', 'persistence', 'replication')
local function of(field) return told:match('\n' .. field .. ':([^\r\n]*)') end
local used, most = tonumber(of('used_memory')), tonumber(of('maxmemory'))
local writable = of('role') == 'master' and of('aof_last_write_status') ~= 'err' and (most == 0 or used < most)

local reply = {table.concat(bounds, ' '), used, most, writable and 1 or 0}
for _, kind in ipairs(kinds()) do
  local counts, oldest, delayed = standing(kind)
  reply[#reply + 1] = {kind, counts, oldest, delayed, read('HGETALL', totals_key(kind)) or {}}
end
return reply
