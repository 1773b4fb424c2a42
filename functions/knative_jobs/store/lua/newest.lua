-- Reads a page of the jobs, newest first.
-- ARGV   1 status, or '' for all   2 submitted-at before which the page begins, or ''   3 its length
-- Reply  {records as JSON with commas between them, submitted-at of the last one or '' when the list ends here}
-- Guarantee  nothing is changed; the page is of one moment, and costs the same however many jobs there are. A job whose
--            record is missing is left out, so that a page may have fewer.

local from = ARGV[2] == '' and '+inf' or '(' .. ARGV[2]
local length = tonumber(ARGV[3])

local function newest(key)
  return read('ZRANGE', key, from, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, length + 1, 'WITHSCORES') or {}
end

-- Every job is in one of these two, so all jobs are what is newest in both.
local these, those = {}, {}
if ARGV[1] == '' then these, those = newest(INCOMPLETE), newest(index('complete')) else these = newest(index(ARGV[1])) end

local records, last = {}, ''
local i, k = 1, 1
for _ = 1, length do
  local incomplete = not those[k] or (these[i] and tonumber(these[i + 1]) > tonumber(those[k + 1]))
  local id
  if incomplete then id, last, i = these[i], these[i + 1], i + 2 else id, last, k = those[k], those[k + 1], k + 2 end
  if not id then break end
  records[#records + 1] = render(id)
end
return {table.concat(records, ','), (these[i] or those[k]) and last or ''}
