-- Reads a page of the jobs that are asked for, in the order of submission or against it.
-- ARGV   1 to 7: what is asked for, as `asked_for` reads it   8 submitted-at after which the page begins, or ''
--        9 its length
-- Reply  {records as JSON with commas between them, submitted-at from where to go on, or '' when there are no more}
-- Guarantee  nothing is changed; the page is of one moment, and costs the same however many jobs there are. It may have
--            fewer records than its length, or none: where a record is missing, where the records are long, and where
--            many jobs had to be looked at.

local records, bytes = {}, 0
local after = each_asked_for(asked_for(1), ARGV[8], tonumber(ARGV[9]), function(id)
  local record = render(id)
  if record then
    records[#records + 1] = record
    bytes = bytes + #record
  end
  return bytes > page_bytes
end)
return {table.concat(records, ','), after}
