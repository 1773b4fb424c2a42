"""Dramatiq: processes of eight threads each. https://dramatiq.io/guide.html"""

from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.systems import REDIS_URL, WORKERS, gunicorn, job, program, run

dramatiq.set_broker(RedisBroker(url=REDIS_URL))


@dramatiq.actor
def complete(job_id: str) -> None:
    job.complete(job_id)


def app() -> Any:
    from bench.systems.front import flask_app

    return flask_app(complete.send)


if __name__ == "__main__":
    run(gunicorn("dramatiq"), [[program("dramatiq"), "bench.systems.dramatiq", "--processes", str(WORKERS)]])
