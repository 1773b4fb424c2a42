"""arq: workers that are asyncio loops, of ten jobs at once each. https://arq-docs.helpmanual.io/

A worker takes up to a hundred jobs from the queue twice a second, by default, which is what bounds two of them here.
"""

import asyncio
import threading
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings

from bench.systems import REDIS_URL, WORKERS, gunicorn, program, run

settings = RedisSettings.from_dsn(REDIS_URL)


async def complete(context: dict[str, Any], job_id: str) -> None:
    await context["redis"].hset(f"job.{job_id}", "status", "complete")


class WorkerSettings:
    functions = (complete,)
    redis_settings = settings


def app() -> Any:
    """Its client is asyncio too, which Flask is not, so there is a loop beside it in a thread."""
    from bench.systems.front import flask_app

    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    pool = asyncio.run_coroutine_threadsafe(create_pool(settings), loop).result()
    return flask_app(
        lambda job_id: asyncio.run_coroutine_threadsafe(pool.enqueue_job("complete", job_id), loop).result()
    )


if __name__ == "__main__":
    run(gunicorn("arq"), WORKERS * [[program("arq"), "bench.systems.arq.WorkerSettings"]])
