-- Removes the jobs that have ended and whose retention is over.
-- ARGV   1 the most to remove
-- Reply  how many were found: as many as the most, when there may be more
-- Guarantee  a record and its index entries go together, that of the outbox among them: there is nothing left to tell. A
--            job that has not ended stays.

local ids = read('ZRANGE', RETENTION, '-inf', now(), 'BYSCORE', 'LIMIT', 0, ARGV[1]) or {}
if #ids == 0 then return 0 end

-- One command for all jobs of an index takes about half the time that one for each job takes.
local gone, keys, by_index = {}, {}, {}
local function drop(key, entry)
  by_index[key] = by_index[key] or {}
  table.insert(by_index[key], entry)
end
for _, id in ipairs(ids) do
  local job = read_job(id, 'key', 'submitted-by')
  local status = job and job[1]
  if status ~= 'submitted' and status ~= 'in progress' then
    gone[#gone + 1] = id
    if job then
      keys[#keys + 1] = record_key(id)
      for _, list in ipairs(status == 'complete' and {status} or {status, 'incomplete'}) do drop(index(list, job[3]), id) end
      local words = word_entries(id, job[2], job[4], job[5])
      for n = 1, #words, 2 do drop(words[n], words[n + 1]) end
    end
  end
end
write('ZREM', RETENTION, unpack(ids))
if #gone > 0 then write('ZREM', OUTBOX, unpack(gone)) end
for key, of_it in pairs(by_index) do write('ZREM', key, unpack(of_it)) end
if #keys > 0 then redis.call('DEL', unpack(keys)) end
return #ids
