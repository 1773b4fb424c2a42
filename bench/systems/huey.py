"""Huey: the consumer with worker processes. https://huey.readthedocs.io/en/latest/consumer.html"""

from typing import Any

from huey import RedisHuey

from bench.systems import REDIS_URL, WORKERS, gunicorn, job, program, run

huey = RedisHuey(url=REDIS_URL)


@huey.task()
def complete(job_id: str) -> None:
    job.complete(job_id)


def app() -> Any:
    from bench.systems.front import flask_app

    return flask_app(complete)


if __name__ == "__main__":
    worker = [program("huey_consumer"), "bench.systems.huey.huey", "--worker-type", "process"]
    run(gunicorn("huey"), [[*worker, "--workers", str(WORKERS)]])
