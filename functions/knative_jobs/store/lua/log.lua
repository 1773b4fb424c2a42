-- Reads what the work of a job has said.
-- ARGV   1 id   2 the number of an attempt, or '' for all   3 how many bytes, of all attempts, the reader has had
-- Reply  {status, how many bytes all attempts have said, 'begun', 'cut' or 'continued', {attempt, text, attempt, text, ...}},
--        or nothing for no job. The first part begins with what its attempt has said first; or after what was dropped; or
--        where the reader was
-- Guarantee  nothing is changed; all of it is of one moment.

local job = read_job(ARGV[1])
if not job then return nil end
local only, after = tonumber(ARGV[2]), tonumber(ARGV[3])
local ends, how, parts = 0, 'begun', {}
for _, part in ipairs(read('LRANGE', log_key(ARGV[1]), 0, -1) or {}) do
  local attempt, before, start, text = log_part(part)
  if attempt then
    ends = start + #text
    if ends > after and (not only or only == attempt) then
      local had = math.max(0, after - start)
      if #parts == 0 and before + had > 0 then how = start > after and 'cut' or 'continued' end
      parts[#parts + 1], parts[#parts + 2] = attempt, text:sub(had + 1)
    end
  end
end
return {job[1], ends, how, parts}
