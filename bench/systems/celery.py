"""Celery: the prefork pool. https://docs.celeryq.dev/en/stable/getting-started/first-steps-with-celery.html"""

from typing import Any

from celery import Celery

from bench.systems import REDIS_URL, WORKERS, gunicorn, job, program, run

tasks = Celery("bench.systems.celery", broker=REDIS_URL)


@tasks.task
def complete(job_id: str) -> None:
    job.complete(job_id)


def app() -> Any:
    from bench.systems.front import flask_app

    return flask_app(complete.delay)


if __name__ == "__main__":
    worker = [program("celery"), "--app", "bench.systems.celery:tasks", "worker", "--concurrency", str(WORKERS)]
    run(gunicorn("celery"), [worker])
