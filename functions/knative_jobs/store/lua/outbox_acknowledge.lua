-- Removes the ends whose events a Broker has from the outbox.
-- ARGV   id, finished-at of each end
-- Reply  how many were removed
-- Guarantee  an end that came after the one that is named, of a job that was retried meanwhile, stays.

local removed = 0
for i = 1, #ARGV, 2 do
  if read('HGET', record_key(ARGV[i]), 'finished-at') == ARGV[i + 1] then
    removed = removed + write('ZREM', OUTBOX, ARGV[i])
  end
end
return removed
