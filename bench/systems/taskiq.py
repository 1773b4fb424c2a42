"""taskiq: worker processes that are asyncio loops, of a hundred jobs at once each. https://taskiq-python.github.io/

Its Redis package has several brokers; this is the one that it recommends where no job may be lost.
"""

from typing import Any

from taskiq_redis import RedisStreamBroker

from bench.systems import REDIS_URL, WORKERS, async_job, program, run, uvicorn

broker = RedisStreamBroker(url=REDIS_URL)


@broker.task
async def complete(job_id: str) -> None:
    await async_job.complete(job_id)


def app() -> Any:
    from bench.systems.async_front import fastapi_app

    return fastapi_app(complete.kiq, broker.startup)


if __name__ == "__main__":
    worker = [program("taskiq"), "worker", "bench.systems.taskiq:broker", "--workers", str(WORKERS)]
    run(uvicorn("taskiq"), [[*worker, "--log-level", "WARNING"]])  # else there is a line in the log for each job
