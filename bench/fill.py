"""Puts many jobs into a store: copies of one that the system really has, finished or waiting.

To submit and do a million jobs would take longer than all else. A copy has the record of the first and its places in
the sorted sets that this one is in, each a microsecond later; the original design has no such sets.
"""

import redis

AT_ONCE = 500
SCANNED_AT_ONCE = 10_000

_COPY = """
-- KEYS the sorted sets that the job is in   ARGV 1 id of the job   2 number of the first copy   3 of the last
--      4 what is added to a number in the id that it gives
local record = redis.call('HGETALL', 'job.' .. ARGV[1])
local places, entries = {}, {}
for s, set in ipairs(KEYS) do
  places[s], entries[s] = redis.call('ZSCORE', set, ARGV[1]), {}
end
for n = ARGV[2], ARGV[3] do
  local id = string.format('%08x-0000-4000-8000-%012x', n + ARGV[4], n)
  local copy = {}
  for i = 1, #record, 2 do
    copy[i], copy[i + 1] = record[i], record[i + 1]
    if record[i] == 'id' then copy[i + 1] = id end
    if record[i] == 'submitted-at' then copy[i + 1] = string.format('%.6f', record[i + 1] + n / 1e6) end
  end
  redis.call('HSET', 'job.' .. id, unpack(copy))
  for s, entry in ipairs(entries) do
    entry[#entry + 1] = string.format('%.6f', places[s] + n / 1e6)
    entry[#entry + 1] = id
  end
end
for s, set in ipairs(KEYS) do redis.call('ZADD', set, unpack(entries[s])) end
"""


def copy(store: redis.Redis, job_id: str, first: int, last: int, apart: int = 0) -> None:
    """Make the copies with these numbers of a job. Those of another job need another value of `apart`."""
    sets = [
        key
        for key in store.scan_iter("jobs.*", count=SCANNED_AT_ONCE, _type="zset")
        if store.zscore(key, job_id) is not None
    ]
    script = store.register_script(_COPY)
    for n in range(first, last + 1, AT_ONCE):
        script(sets, [job_id, n, min(n + AT_ONCE - 1, last), apart])
