"""The system under test: `python -m local`, and where its processes are."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import redis

from harness.local_mode import START_SECONDS, LocalMode
from harness.waiting import until
from local import ports, redis_server

HOST = "127.0.0.1"
WORKERS = 4
DATA, LOG = "data", "data.log"
"""What is in the folder of a run: the data of Redis, and what the system has printed."""


class System(LocalMode):
    """One run of it. Its data and what it prints are in one folder."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """Start it and wait until it is ready.

        Args:
            folder: for all that it writes; the kinds of job are there.
            settings: its environment, over this process's own.

        Raises:
            RuntimeError: it did not start; the message is its log.
        """
        super().__init__(folder / DATA, "--kinds", str(folder / "kinds"), "--max-workers", str(WORKERS), **settings)
        self.start()
        self._supervisor = psutil.Process(self.process.pid)

    def redis(self) -> psutil.Process | None:
        """Return the Redis server."""
        return next(_children(self._supervisor, lambda child: child.name().endswith("-server")), None)

    def broker(self) -> psutil.Process | None:
        """Return the Broker; its end is that of all workers too."""
        return next(_children(self._supervisor, lambda child: "local.knative" in child.cmdline()), None)

    def endpoints(self) -> psutil.Process | None:
        """Return the server of the public functions."""
        servers = _children(self._supervisor, lambda child: any("endpoints.py" in word for word in child.cmdline()))
        return next(servers, None)

    def workers(self) -> list[psutil.Process]:
        """Return the servers of the worker function."""
        knative = self.broker()
        return list(_children(knative, lambda child: child.environ().get("FUNCTION_TARGET") == "worker"))

    def broker_url(self) -> str | None:
        """Return the address that events are sent to."""
        with suppress(psutil.Error):
            if endpoints := self.endpoints():
                return endpoints.environ()["K_SINK"]
        return None


def _children(parent: psutil.Process | None, wanted: Callable[[psutil.Process], bool]) -> Iterator[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        for child in parent.children() if parent else ():
            with suppress(psutil.Error):  # it has just ended
                if wanted(child):
                    yield child


def work_process(worker: psutil.Process) -> psutil.Process | None:
    """Return the process that does the work of this worker."""
    with suppress(psutil.Error):
        for child in worker.children(recursive=True):
            if "knative_jobs.work.process" in child.cmdline():
                return child
    return None


@contextmanager
def redis_alone(folder: Path) -> "Iterator[redis.Redis]":
    """Serve what a system that was stopped has left on disk."""
    port = ports.free(HOST)
    with subprocess.Popen(redis_server.command(port, folder / DATA, {})) as server:  # noqa: S603
        client = redis.Redis(port=port, decode_responses=True)
        try:
            until(lambda: _answers(client), START_SECONDS)
            yield client
        finally:
            client.close()
            server.kill()


def _answers(client: redis.Redis) -> bool:
    with suppress(redis.ConnectionError):
        return bool(client.ping())
    return False
