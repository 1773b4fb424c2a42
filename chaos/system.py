"""The system under test: `python -m local`, and where its processes are."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import psutil
import redis

from chaos import ROOT
from local import ports, redis_server

HOST = "127.0.0.1"
START_SECONDS, STOP_SECONDS = 60, 60
WORKERS = 4
T = TypeVar("T")


class System:
    """One run of it. Its lines are in the file `log` of its folder."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """Start it and wait until it is ready.

        Args:
            folder: for the data of Redis and the log.
            settings: its environment, over this process's own.

        Raises:
            RuntimeError: it did not start; the message is its log.
        """
        port = ports.free(HOST)
        self.url = f"http://{HOST}:{port}"
        self.folder = folder
        self.log = folder / "log"
        options = ["--data", str(folder / "data"), "--kinds", str(folder / "kinds"), "--max-workers", str(WORKERS)]
        command = [sys.executable, "-P", "-m", "local", *options]
        env = {**os.environ, **settings, "PORT": str(port), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
        with self.log.open("w") as log:
            self._process = subprocess.Popen(  # noqa: S603
                command, cwd=folder, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self._supervisor = psutil.Process(self._process.pid)
        until(lambda: "Ready on" in self.log.read_text() or self._process.poll() is not None, START_SECONDS)
        found = re.search(r"redis-cli -p (\d+)", self.log.read_text())
        if not found:
            self.stop()
            raise RuntimeError(self.log.read_text())
        self.redis_port = int(found[1])

    def stop(self) -> None:
        """Stop it as Ctrl-C does: what runs may finish."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its reaper ends the rest
            self._process.wait()

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
    with subprocess.Popen(redis_server.command(port, folder / "data", {})) as server:  # noqa: S603
        client = redis.Redis(port=port, decode_responses=True)
        try:
            until(lambda: _answers(client), START_SECONDS)
            yield client
        finally:
            client.close()
            server.kill()


def until(check: Callable[[], T], within_s: float) -> T:
    """Return the first true value of `check`, or its last one when there is none in time."""
    ends_at = time.monotonic() + within_s
    while not (value := check()) and time.monotonic() < ends_at:
        time.sleep(0.05)
    return value


def _answers(client: redis.Redis) -> bool:
    with suppress(redis.ConnectionError):
        return bool(client.ping())
    return False
