-- Removes the jobs that have ended and whose retention is over.
-- ARGV   1 the most to remove
-- Reply  how many were found: as many as the most, when there may be more
-- Guarantee  a record and its index entries go together, that of the outbox among them: there is nothing left to tell. A
--            job that has not ended stays.

local ids = read('ZRANGE', RETENTION, '-inf', now(), 'BYSCORE', 'LIMIT', 0, ARGV[1]) or {}
for _, id in ipairs(ids) do
  write('ZREM', RETENTION, id)
  local job = read_job(id)
  local status = job and job[1]
  if status ~= 'submitted' and status ~= 'in progress' then
    write('ZREM', OUTBOX, id)
    write('ZREM', INCOMPLETE, id)
    if job then
      write('ZREM', index(status), id)
      redis.call('DEL', record_key(id))
    end
  end
end
return #ids
