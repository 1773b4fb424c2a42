-- Reads a page of a list, in the order of submission.
-- ARGV   1 the list: a status, or 'incomplete'   2 submitted-at after which the page begins, or ''   3 its length
--        4 the kind, or '' for all
-- Reply  {records as JSON with commas between them, submitted-at of the last one or '' when the list ends here}
-- Guarantee  nothing is changed; the page is of one moment. A page may have fewer records than its length: where a record is
--            missing, or the records are long.

local keys = {}
for _, kind in ipairs(ARGV[4] == '' and kinds() or {ARGV[4]}) do keys[#keys + 1] = index(ARGV[1], kind) end
return {page_of(keys, ARGV[2] == '' and '-inf' or '(' .. ARGV[2], tonumber(ARGV[3]), false)}
