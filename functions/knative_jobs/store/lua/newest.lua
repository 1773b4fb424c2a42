-- Reads a page of the jobs, newest first.
-- ARGV   1 status, or '' for all   2 submitted-at before which the page begins, or ''   3 its length
--        4 the kind, or '' for all
-- Reply  {records as JSON with commas between them, submitted-at of the last one or '' when the list ends here}
-- Guarantee  nothing is changed; the page is of one moment, and costs the same however many jobs there are. A page may have
--            fewer records than its length: where a record is missing, or the records are long.

-- Every job is in one of these two, so all jobs are what is newest in both.
local lists = ARGV[1] == '' and {'incomplete', 'complete'} or {ARGV[1]}
local keys = {}
for _, kind in ipairs(ARGV[4] == '' and kinds() or {ARGV[4]}) do
  for _, list in ipairs(lists) do keys[#keys + 1] = index(list, kind) end
end
return {page_of(keys, ARGV[2] == '' and '+inf' or '(' .. ARGV[2], tonumber(ARGV[3]), true)}
