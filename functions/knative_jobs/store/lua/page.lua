-- Reads a page of a list, in the order of submission.
-- ARGV   1 the list: a status, or 'incomplete'   2 submitted-at after which the page begins, or ''   3 its length
-- Reply  {records as JSON with commas between them, submitted-at of the last one or '' when the list ends here}
-- Guarantee  nothing is changed; the page is of one moment.

local first = ARGV[2] == '' and '-inf' or '(' .. ARGV[2]
local length = tonumber(ARGV[3])
local ids = redis.call('ZRANGE', index(ARGV[1]), first, '+inf', 'BYSCORE', 'LIMIT', 0, length + 1)
local records = {}
for i = 1, math.min(#ids, length) do records[i] = render(ids[i]) end
local last = ''
if #ids > length then last = redis.call('HGET', record_key(ids[length]), 'submitted-at') end
return {table.concat(records, ','), last}
