"""The worker's side of the process that does the user's work: starting, finding and ending it."""

import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from knative_jobs.runtime.settings import InvalidSettingError, settings, work_environment
from knative_jobs.work.messages import BadMessageError, Channel
from knative_jobs.work.output import Output

EXIT_SECONDS = 1
"""A process that has closed its socket may take so long to exit by itself: then its exit code is known."""


class WorkProcess:
    """A process that does the work, or is about to be able to. It leads a process group: all that it starts is in it.

    It gets one end of a socket for messages, of a pipe for what it says (`output`), and of a second pipe that nothing
    is ever written to: its end tells the process that the worker is gone. Standard input is empty.
    """

    def __init__(self) -> None:
        mark = f"\x1e{secrets.token_hex(8)}"
        ours, theirs = socket.socketpair()
        # The user's work may be in the current folder. It comes last: no file there may stand for a library.
        search = [*filter(None, sys.path), os.getcwd()]
        said, says = os.pipe()
        alive, self._alive = os.pipe()
        command = [sys.executable, "-P", "-m", "knative_jobs.work.process", str(theirs.fileno()), str(alive), mark]
        try:
            self._process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=says,
                stderr=says,
                pass_fds=[theirs.fileno(), alive],
                start_new_session=True,
                env=work_environment(PYTHONPATH=os.pathsep.join(search), PYTHONUNBUFFERED="1"),
            )
        except OSError:
            ours.close()
            os.close(said)
            os.close(self._alive)
            raise
        finally:
            theirs.close()
            os.close(says)
            os.close(alive)
        self.output = Output(said, mark)
        self.owner = os.getpid()
        self._is_ready = False
        self._exit: int | None = None
        self._channel = Channel(ours)
        self._readers: dict[int, Callable[[], object]] = {
            self._channel.fileno(): self._channel.read,
            self.output.fileno(): self._read_output,
        }
        with suppress(AttributeError, OSError):  # only Linux has them, and not every sandbox there
            self._exit = os.pidfd_open(self._process.pid)
            self._readers[self._exit] = self._read_last
        self._any = select.poll()
        for descriptor in self._readers:
            self._any.register(descriptor, select.POLLIN)

    def send(self, *message: Any) -> None:
        """Send a message of `work.messages`.

        Raises:
            OSError: the process has ended.
        """
        self._channel.send(*message)

    def receive(self, until: float) -> list[Any] | None:
        """Wait for the next message, and pass on meanwhile what the work says.

        Args:
            until: return None once `time.monotonic()` is so late.

        Raises:
            EOFError, OSError: the process has ended. That is known at once, or without a pidfd at `until`, even where
                a child that it has forked holds its end of the socket open.
            BadMessageError: it sent something that is not a message.
        """
        while (left_s := until - time.monotonic()) > 0:
            if (message := self._channel.received()) is not None:
                return message
            for descriptor, _ in self._any.poll(left_s * 1000):
                self._readers[descriptor]()
        if self.has_ended():
            self._read_last()
        return None

    def has_ended(self) -> bool:
        """Return whether the process has ended; what it has started may still run."""
        return self._process.poll() is not None

    def catch_up(self) -> None:
        """Pass on what the work has said since the last attempt, and drop what else has come since then.

        Raises:
            EOFError, OSError: the process has ended.
            BadMessageError: it sent something that is not a message.
        """
        for descriptor, _ in self._any.poll(0):
            self._readers[descriptor]()
        while self._channel.received():
            pass

    def wait_until_ready(self) -> None:
        """Wait until the user's work is imported. Call it before any attempt.

        Raises:
            InvalidSettingError: it cannot be.
            EOFError, OSError: the process has ended.
            BadMessageError: it sent something that is not a message.
        """
        while not self._is_ready:
            message = self.receive(time.monotonic() + 1)
            if message and message[0] == "unusable":
                raise InvalidSettingError(unusable(str(message[-1])))
            self._is_ready = message == ["ready"]

    def end(self, patience_s: float = EXIT_SECONDS) -> str:
        """End the process and all that it has started, and return how it ended.

        Args:
            patience_s: how long it may take to end by itself.
        """
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        # Also where the process has ended: its children may live. No other process can have got its number meanwhile
        # as long as one of them does. On macOS a group of zombies is a PermissionError.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        self._channel.close()
        self.output.close()
        os.close(self._alive)
        if self._exit is not None:
            os.close(self._exit)
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def _read_last(self) -> None:
        """Read what a process that has ended sent before. Raises EOFError when that makes no message."""
        with suppress(EOFError, OSError):
            while self._channel.read(wait=False):
                pass
        if not self._channel.holds_message():
            raise EOFError

    def _read_output(self) -> None:
        if not self.output.read():
            self._any.unregister(self.output)


_process: WorkProcess | None = None


def unusable(why: str) -> str:
    """Say that the user's work cannot be imported."""
    s = settings()
    limit = f" (with WORK_MEMORY_MIB={s.work_memory_mib})" if s.work_memory_mib else ""
    return f"JOB_WORK={s.job_work!r} cannot be used{limit}: {why}"


def start() -> WorkProcess:
    """Start the process, and do not wait for it: it imports the user's work beside what the caller imports."""
    global _process
    _process = WorkProcess()
    _discard_at_exit(os.getpid())
    return _process


def ready() -> None:
    """Start the process where that has not been done, and wait until it can do work.

    Raises:
        InvalidSettingError: the user's work cannot be imported.
    """
    process = _own() or start()
    try:
        process.wait_until_ready()
    except (EOFError, OSError, BadMessageError) as error:
        raise InvalidSettingError(unusable(f"its process died: {discard(EXIT_SECONDS)}")) from error


def current() -> WorkProcess:
    """Return the process. It is a new one, which may not be ready yet, when the last has ended or was discarded."""
    process = _own()
    if not process:
        return start()
    try:
        process.catch_up()
    except (EOFError, OSError, BadMessageError):
        discard()
        return start()
    return process


@cache
def _discard_at_exit(_worker: int) -> None:
    """End the process with its worker. It would end by itself, but one that has died cannot end what it had started.

    `tracing` says why multiprocessing is asked for that.
    """
    from multiprocessing.util import Finalize

    Finalize(None, discard, exitpriority=2)


def _own() -> WorkProcess | None:
    """Return the process of this worker: a server that forks has one in each of its processes."""
    return _process if _process and _process.owner == os.getpid() else None


def discard(patience_s: float = 0) -> str:
    """End the process, and all that it has started, if there is one. Return how it ended.

    Args:
        patience_s: how long it may take to end by itself.
    """
    global _process
    process, _process = _own(), None
    return process.end(patience_s) if process else ""
