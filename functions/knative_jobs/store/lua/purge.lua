-- Removes the jobs that have ended and whose retention is over.
-- ARGV   1 the most to remove
-- Reply  how many were removed
-- Guarantee  a record and its index entries go together, that of the outbox among them: there is nothing left to tell.

local ids = redis.call('ZRANGE', 'jobs.retention', '-inf', now(), 'BYSCORE', 'LIMIT', 0, ARGV[1])
for _, id in ipairs(ids) do
  redis.call('ZREM', 'jobs.retention', id)
  redis.call('ZREM', 'jobs.outbox', id)
  redis.call('ZREM', index(redis.call('HGET', record_key(id), 'status')), id)
  redis.call('ZREM', 'jobs.incomplete', id)
  redis.call('DEL', record_key(id))
end
return #ids
