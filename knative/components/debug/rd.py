"""The connection `rd` to the Redis of the jobs, for `python` in the debug pod."""

import os

import redis

rd = redis.Redis.from_url(os.environ["REDIS_URL"], password=os.environ["REDIS_PASSWORD"], decode_responses=True)
