-- Counts events of submitted jobs that were dropped, for the metrics.
-- ARGV   kind, how many, kind, how many, ...
-- Reply  'OK'
-- Guarantee  nothing else is changed. A Redis that takes no writes leaves them uncounted.

for i = 1, #ARGV, 2 do redis.pcall('HINCRBY', totals_key(ARGV[i]), 'dropped', ARGV[i + 1]) end
return 'OK'
