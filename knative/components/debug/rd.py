"""The connection `rd` to the Redis of the jobs, which may read records and lists, for `python` in the debug pod."""

import redis

from knative_jobs.store.primary import pool

rd = redis.Redis.from_pool(pool(redis, decode_responses=True))
