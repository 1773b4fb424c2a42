"""SAQ: worker processes that are asyncio loops, of ten jobs at once each. https://saq-py.readthedocs.io/"""

from typing import Any

from saq import Queue

from bench.systems import REDIS_URL, WORKERS, async_job, program, run, uvicorn

queue = Queue.from_url(REDIS_URL)


async def complete(context: dict[str, Any], *, job_id: str) -> None:
    await async_job.complete(job_id)


settings = {"queue": queue, "functions": [complete], "concurrency": 10}


def app() -> Any:
    from bench.systems.async_front import fastapi_app

    return fastapi_app(lambda job_id: queue.enqueue("complete", job_id=job_id), queue.connect)


if __name__ == "__main__":
    run(uvicorn("saq"), [[program("saq"), "bench.systems.saq.settings", "--workers", str(WORKERS)]])
