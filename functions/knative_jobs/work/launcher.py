"""The worker's side of the process that does the user's work: starting, finding and ending it."""

import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from knative_jobs.runtime import work_address
from knative_jobs.runtime.settings import InvalidSettingError, settings, work_environment
from knative_jobs.work.messages import BadMessageError, Channel
from knative_jobs.work.output import Output
from knative_jobs.work.shared_process import SharedAttempt, SharedProcess

EXIT_SECONDS = 1
"""A process that has closed its socket may take so long to exit by itself: then its exit code is known."""


class WorkProcess:
    """A process that does the work, or is about to be able to. It leads a process group: all that it starts is in it.

    It gets one end of a socket for messages, of a pipe for what it says (`output`), and of a second pipe that nothing
    is ever written to: its end tells the process that the worker is gone. Standard input is empty.
    """

    def __init__(self) -> None:
        """Start it.

        Raises:
            OSError: it could not be started.
        """
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
        _living.add(self)
        _end_all_at_exit(self.owner)
        self._ready: list[Any] = []
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
        while not self._ready:
            message = self.receive(time.monotonic() + 1)
            if message and message[0] == "unusable":
                raise InvalidSettingError(unusable(str(message[-1])))
            if message and message[0] == "ready":
                self._ready = message

    def does_several(self) -> bool:
        """Return whether the process, which is ready, does several attempts at once."""
        return self._ready == ["ready", "several"]

    def open_channel(self) -> Channel:
        """Return a channel to a process that does several attempts at once, for one of them.

        Raises:
            OSError: the process has ended.
        """
        return self._channel.open_channel()

    def attribute(self, *attempt: Any) -> None:
        """Say whose attempt the process does, for what it prints: see `Output.attribute`."""
        self.output.attribute(*attempt)

    def release(self) -> None:
        """Keep the process for another attempt."""
        _idle.append(self)

    def end(self, patience_s: float = 0) -> str:
        """End the process and all that it has started, and return how it ended. Call it once.

        Args:
            patience_s: how long it may take to end by itself.
        """
        _living.discard(self)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        self.kill()
        code = self._process.wait()
        self._channel.close()
        self.output.close()
        os.close(self._alive)
        if self._exit is not None:
            os.close(self._exit)
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        """Kill the process and all that it has started."""
        # Also where the process has ended: its children may live. No other process can have got its number meanwhile
        # as long as one of them does. On macOS a group of zombies is a PermissionError.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

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


_idle: list[WorkProcess] = []
"""The processes that no attempt has."""
_living: set[WorkProcess] = set()
"""All that have not been ended."""
_sharing = threading.Lock()
_shared: SharedProcess | None = None
"""The process that does all attempts, when one does several at once."""


def unusable(why: str) -> str:
    """Say that the user's work cannot be imported."""
    s = settings()
    limit = f" (with WORK_MEMORY_MIB={s.work_memory_mib})" if s.work_memory_mib else ""
    return f"JOB_WORK={s.job_work!r} cannot be used{limit}: {why}"


def start() -> None:
    """Start a process, and do not wait for it: it imports the user's work beside what the caller imports.

    Work that a service does needs none.
    """
    if not work_address.is_address(settings().job_work):
        WorkProcess().release()


def ready() -> None:
    """Start a process where that has not been done, and wait until it can do work.

    Call it before `take`.

    Raises:
        InvalidSettingError: the user's work cannot be imported.
    """
    if work_address.is_address(settings().job_work):
        return
    process = _take_idle() or WorkProcess()
    try:
        process.wait_until_ready()
    except (EOFError, OSError, BadMessageError) as error:
        raise InvalidSettingError(unusable(f"its process died: {process.end(EXIT_SECONDS)}")) from error
    except InvalidSettingError:
        process.end()
        raise
    if process.does_several():
        _share(process)
    else:
        process.release()


def take() -> WorkProcess | SharedAttempt:
    """Return a process for one attempt, or the one that does several. It may be a new one, which is not ready yet.

    Raises:
        OSError: it could not be started.
    """
    with _sharing:
        if _shared:
            return (_share(WorkProcess()) if _shared.has_ended() else _shared).begin()
    while process := _take_idle():
        try:
            process.catch_up()
        except (EOFError, OSError, BadMessageError):
            process.end()
        else:
            return process
    return WorkProcess()


def _share(process: WorkProcess) -> SharedProcess:
    """Have the process do all attempts from here on."""
    global _shared
    _shared = SharedProcess(process)
    return _shared


def _take_idle() -> WorkProcess | None:
    """Return an idle process of this worker: a server that forks has some in each of its processes."""
    with suppress(IndexError):
        while True:
            process = _idle.pop()
            if process.owner == os.getpid():
                return process
    return None


@cache
def _end_all_at_exit(_worker: int) -> None:
    """End the processes with their worker. They would end by themselves, but what they have started would not.

    `tracing` says why multiprocessing is asked for that.
    """
    from multiprocessing.util import Finalize

    Finalize(None, _end_all, exitpriority=2)


def _end_all() -> None:
    for process in list(_living):
        if process.owner == os.getpid():
            process.end()
