"""RQ: the worker pool, whose workers fork a process for each job. https://python-rq.org/docs/workers/"""

from typing import Any

from rq import Queue

from bench.systems import REDIS_URL, WORKERS, gunicorn, job, program, run


def app() -> Any:
    from bench.systems.front import flask_app

    queue = Queue(connection=job.store)
    return flask_app(lambda job_id: queue.enqueue(job.complete, job_id))


if __name__ == "__main__":
    run(gunicorn("rq"), [[program("rq"), "worker-pool", "--num-workers", str(WORKERS), "--url", REDIS_URL]])
