-- Reads how all jobs stand and what happened so far.
-- Reply  {{status, number of jobs, ...}, seconds that the oldest waiting job has waited, {what, how often, ...},
--        the bounds of the histograms in seconds, with spaces between them}
-- Guarantee  nothing is changed; all of it is of one moment.

local counts, oldest = standing()
return {counts, oldest, redis.call('HGETALL', 'jobs.totals'), table.concat(bounds, ' ')}
