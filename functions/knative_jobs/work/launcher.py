"""The worker's side of the process that does the user's work: starting, finding and ending it."""

import os
import signal
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from typing import Any

from knative_jobs.runtime.settings import InvalidSettingError, settings, work_environment


class WorkProcess:
    """A process that does the work, or is about to be able to."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "knative_jobs.work.process", str(theirs.fileno())],
                stdin=subprocess.PIPE,  # held open: its end tells the process that the worker is gone
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=work_environment(PYTHONPATH=os.pathsep.join(filter(None, sys.path)), PYTHONUNBUFFERED="1"),
            )
        self.connection: Connection[Any, Any] = Connection(ours.detach())
        self.owner = os.getpid()
        self._ready = False

    def wait_until_ready(self) -> None:
        """Wait until the user's work is imported.

        Raises:
            InvalidSettingError: it cannot be.
        """
        if self._ready:
            return
        try:
            kind, why = self.connection.recv()
        except (EOFError, OSError):
            kind, why = "unusable", f"its process died: {self.end()}"
        if kind != "ready":
            raise InvalidSettingError(f"JOB_WORK={settings().job_work!r} cannot be used: {why}")
        self._ready = True

    def end(self) -> str:
        """End the process and all that it started. Return how it ended."""
        try:
            code = self._process.wait(0.1)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            code = self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"


_process: WorkProcess | None = None


def start() -> None:
    """Start the process, and do not wait for it: it imports the user's work beside what the caller imports."""
    global _process
    _process = WorkProcess()


def ready() -> WorkProcess:
    """Return the process, once it is ready. It is a new one when the last was discarded.

    Raises:
        InvalidSettingError: the user's work cannot be imported.
    """
    if _process is None or _process.owner != os.getpid():  # a server that forks has one in each process
        start()
    assert _process is not None  # noqa: S101
    _process.wait_until_ready()
    return _process


def discard() -> str:
    """End the process. Return how it ended."""
    global _process
    assert _process is not None  # noqa: S101
    ended, _process = _process.end(), None
    return ended
