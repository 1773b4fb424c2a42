"""The job of `job`, for task queues whose jobs are coroutines."""

from typing import Any

import redis.asyncio

from bench.systems import REDIS_URL

store: Any = redis.asyncio.Redis.from_url(REDIS_URL, decode_responses=True)


async def complete(job_id: str) -> None:
    """Do the job."""
    await store.hset(f"job.{job_id}", "status", "complete")
