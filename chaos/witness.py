"""The witness: keeps each ended job's record as it was first seen, so that a later change of it comes out."""

import threading
from contextlib import suppress
from typing import Any

import redis

from chaos.system import HOST

ENDED = ("complete", "failed", "cancelled")
LOOK_SECONDS = 0.3
Record = dict[str, str]


class Witness(threading.Thread):
    """Looks at Redis itself, past the proxy, until it is stopped."""

    def __init__(self, redis_port: int) -> None:
        super().__init__()
        self._redis = redis.Redis(HOST, redis_port, decode_responses=True, socket_timeout=5)
        self._over = threading.Event()
        self.seen: dict[tuple[str, str], Record] = {}
        """By id and status."""

    def run(self) -> None:
        """Look again and again."""
        while not self._over.wait(LOOK_SECONDS):
            with suppress(redis.RedisError):  # it was killed; another look comes
                self._look()

    def stop(self) -> None:
        """Look once more."""
        self._over.set()
        self.join()
        with suppress(redis.RedisError):
            self._look()
        self._redis.close()

    def open_jobs(self) -> int | None:
        """Return how many jobs wait or run; None while Redis is away."""
        with suppress(redis.RedisError):
            return self._redis.zcard("jobs.submitted") + self._redis.zcard("jobs.in-progress")
        return None

    def _look(self) -> None:
        for status in ENDED:
            ids: Any = self._redis.zrange(f"jobs.{status}", 0, -1)
            new = [job_id for job_id in ids if (job_id, status) not in self.seen]
            with self._redis.pipeline(transaction=False) as pipeline:
                for job_id in new:
                    pipeline.hgetall(f"job.{job_id}")
                for job_id, record in zip(new, pipeline.execute(), strict=True):
                    if record.get("status") == status:
                        self.seen[job_id, status] = record
