-- Removes the jobs that have ended and whose retention is over.
-- ARGV   1 the most to remove
-- Reply  how many were found: as many as the most, when there may be more
-- Guarantee  a record, its log and its index entries go together, that of the outbox among them: there is nothing left to tell.
--            A job that has not ended stays.

local ids = read('ZRANGE', RETENTION, '-inf', now(), 'BYSCORE', 'LIMIT', 0, ARGV[1]) or {}
if #ids == 0 then return 0 end

-- One command for all jobs of an index takes about half the time that one for each job takes.
local keys, by_index = {}, {[RETENTION] = {}, [OUTBOX] = {}}
for _, id in ipairs(ids) do
  local job = read_job(id, 'key', 'submitted-by')
  local status = job and job[1]
  table.insert(by_index[RETENTION], id)
  if not job then
    table.insert(by_index[OUTBOX], id)
  elseif status ~= 'submitted' and status ~= 'in progress' then
    keys[#keys + 1], keys[#keys + 2] = record_key(id), log_key(id)
    for key, entry in pairs(ended_entries(id, job)) do
      by_index[key] = by_index[key] or {}
      if key ~= RETENTION then table.insert(by_index[key], entry) end
    end
  end
end
for key, entries in pairs(by_index) do
  if #entries > 0 then write('ZREM', key, unpack(entries)) end
end
if #keys > 0 then redis.call('DEL', unpack(keys)) end
return #ids
