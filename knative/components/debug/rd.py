"""The connection `rd` to the Redis of the jobs, which may read records and lists, for `python` in the debug pod."""

import os

import redis

rd = redis.Redis.from_url(
    os.environ["REDIS_URL"],
    username=os.environ["REDIS_USERNAME"],
    password=os.environ["REDIS_PASSWORD"],
    decode_responses=True,
)
