-- Reads a page of a list, in the order of submission.
-- ARGV   1 the list: a status, or 'incomplete'   2 submitted-at after which the page begins, or ''   3 its length
-- Reply  {records as JSON with commas between them, submitted-at of the last one or '' when the list ends here}
-- Guarantee  nothing is changed; the page is of one moment. A job whose record is missing is left out, so that a page may
--            have fewer.

local list = index(ARGV[1])
local first = ARGV[2] == '' and '-inf' or '(' .. ARGV[2]
local length = tonumber(ARGV[3])
local ids = read('ZRANGE', list, first, '+inf', 'BYSCORE', 'LIMIT', 0, length + 1) or {}
local records = {}
for i = 1, math.min(#ids, length) do records[#records + 1] = render(ids[i]) end
return {table.concat(records, ','), #ids > length and redis.call('ZSCORE', list, ids[length]) or ''}
