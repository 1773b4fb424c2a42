"""The original design: Flask's development server, hotqueue, whole records read and written, lists by `KEYS *`.

Its Redis has the same durability as everybody's here, though it came without any.
"""

import socket
import sys
import uuid
from typing import Any

import redis
from flask import Flask, jsonify, request
from hotqueue import HotQueue

from bench.systems import PORT, REDIS_PORT, REDIS_URL, WORKERS, program, run

store: Any = redis.Redis.from_url(REDIS_URL, decode_responses=True)
queue = HotQueue("queue", host="127.0.0.1", port=int(REDIS_PORT), db=1)
app = Flask(__name__)


@app.post("/jobs")
def jobs() -> Any:
    given = request.get_json()
    job = {"id": str(uuid.uuid4()), "status": "submitted", "start": given["start"], "end": given["end"]}
    store.hset(f"job.{job['id']}", mapping=job)
    queue.put(job["id"])
    return jsonify(job), 202


@app.get("/jobs_status")
def jobs_status() -> Any:
    return jsonify(store.hgetall(f"job.{request.args['job_id']}"))


@app.get("/completed_jobs")
def completed_jobs() -> Any:
    keys = store.keys("*")
    return jsonify([store.hgetall(key) for key in keys if store.hgetall(key)["status"] == "complete"])


def work() -> None:
    """Take one job after another from the queue."""
    for job_id in queue.consume():
        key = f"job.{job_id}"
        job = dict(zip(("id", "status", "start", "end"), store.hmget(key, "id", "status", "start", "end"), strict=True))
        store.hset(key, mapping={**job, "status": "in progress"})
        store.hset(key, mapping={**store.hgetall(key), "worker-ip": socket.gethostbyname("localhost")})
        store.hset(key, mapping={**store.hgetall(key), "status": "complete"})


if __name__ == "__main__":
    if "work" in sys.argv:
        work()
    else:
        front = [program("flask"), "--app", "bench.systems.original", "run", "--port", PORT]
        run(front, WORKERS * [[sys.executable, "-P", "-m", "bench.systems.original", "work"]])
