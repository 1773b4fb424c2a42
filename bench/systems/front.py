"""The front that the users of a task queue would write: saves the job, enqueues its id, answers."""

import uuid
from collections.abc import Callable
from typing import Any

from flask import Flask, abort, request

from bench.systems.job import store


def flask_app(enqueue: Callable[[str], Any]) -> Flask:
    """Return the Flask application; `enqueue` puts a job's id on the queue."""
    app = Flask(__name__)

    @app.post("/jobs")
    def jobs() -> Any:
        given = request.get_json()
        job = {"id": str(uuid.uuid4()), "status": "submitted", "start": given["start"], "end": given["end"]}
        store.hset(f"job.{job['id']}", mapping=job)
        enqueue(job["id"])
        return job, 202

    @app.get("/jobs_status")
    def jobs_status() -> Any:
        return store.hgetall(f"job.{request.args['job_id']}") or abort(404)

    return app
