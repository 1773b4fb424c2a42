-- Removes a job that has ended, before its retention is over.
-- ARGV   1 id
-- Reply  the job's status as it was, 'unknown' for no job
-- Guarantee  a record, its log and its index entries go together, that of the outbox among them. A job that has not ended stays.

local id = ARGV[1]
local job = read_job(id, 'key', 'submitted-by')
if not job then return 'unknown' end
if job[1] == 'submitted' or job[1] == 'in progress' then return job[1] end
for key, entry in pairs(ended_entries(id, job)) do write('ZREM', key, entry) end
redis.call('DEL', record_key(id), log_key(id))
return job[1]
