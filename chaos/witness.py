"""The witness: keeps each ended job's record as it was first seen, so that a later change of it comes out."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

import redis

from chaos.job_kinds import ALL
from knative_jobs.runtime.job_status import ENDED

OPEN = ("submitted", "in-progress")
LOOK_SECONDS = 0.3
Record = dict[str, str]


def _members(client: redis.Redis, key: str) -> list[str]:
    members: Any = client.zrange(key, 0, -1)
    return list(members)


class Witness(threading.Thread):
    """Looks at Redis itself, past the proxy, until it is stopped."""

    def __init__(self, connect: Callable[[], AbstractContextManager[redis.Redis]], replicas: int) -> None:
        """Take what so many replicas have, too, for what was seen for good: a failover may lose the rest."""
        super().__init__()
        self._connect = connect
        self._replicas = replicas
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

    def open_jobs(self) -> int | None:
        """Return how many jobs wait or run; None while Redis is away."""
        with suppress(redis.RedisError), self._connect() as client:
            return sum(client.zcard(f"jobs.{status}{end}") for status in OPEN for end in ALL.values())
        return None

    def _look(self) -> None:
        seen: dict[tuple[str, str], Record] = {}
        with self._connect() as client:
            for status in ENDED:
                ids = [job_id for end in ALL.values() for job_id in _members(client, f"jobs.{status}{end}")]
                new = [job_id for job_id in ids if (job_id, status) not in self.seen]
                with client.pipeline(transaction=False) as pipeline:
                    for job_id in new:
                        pipeline.hgetall(f"job.{job_id}")
                    for job_id, record in zip(new, pipeline.execute(), strict=True):
                        if record.get("status") == status:
                            seen[job_id, status] = record
            if self._replicas:
                client.hincrby("jobs.totals", "submitted", 0)  # WAIT is about what this connection has written
                if client.wait(self._replicas, 1000) < self._replicas:
                    return
        self.seen |= seen
