-- Reads a page of the jobs, newest first.
-- ARGV   1 status, or '' for all   2 submitted-at before which the page begins, or ''   3 its length
-- Reply  {records as JSON with commas between them, submitted-at of the last one or '' when the list ends here}
-- Guarantee  nothing is changed; the page is of one moment, and costs the same however many jobs there are.

local from = ARGV[2] == '' and '+inf' or '(' .. ARGV[2]
local length = tonumber(ARGV[3])

local function read(key)
  return redis.call('ZRANGE', key, from, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, length + 1, 'WITHSCORES')
end

-- Every job is in one of these two, so all jobs are what is newest in both.
local these, those = {}, {}
if ARGV[1] == '' then these, those = read('jobs.incomplete'), read('jobs.complete') else these = read(index(ARGV[1])) end

local ids, i, k = {}, 1, 1
while #ids <= length and (these[i] or those[k]) do
  if not those[k] or (these[i] and tonumber(these[i + 1]) > tonumber(those[k + 1])) then
    ids[#ids + 1], i = these[i], i + 2
  else
    ids[#ids + 1], k = those[k], k + 2
  end
end

local records = {}
for n = 1, math.min(#ids, length) do records[n] = render(ids[n]) end
local last = ''
if #ids > length then last = redis.call('HGET', record_key(ids[length]), 'submitted-at') end
return {table.concat(records, ','), last}
