"""What the work says: the lines that its process, and whatever that starts, write to standard output and error.

Both are one pipe to the worker, so that lines keep their order, those of a process that crashes are not lost, and none
is in the way of the messages between the two. The worker passes each line on to its own log, with the attempt that was
under way. A record of `logging` is a line too: JSON behind a mark, which nobody can print who does not know it.
"""

import contextlib
import io
import json
import logging
import os
import select
import sys
import threading
import time
from contextvars import ContextVar
from typing import Any

from knative_jobs.runtime import logs
from knative_jobs.work import job_log

MAX_LINE_BYTES = 256 * 1024
"""A longer line is passed on in pieces."""
MAX_LOGGED = 32 * 1024
"""A message of `logging` may have so many characters, and its traceback a quarter: as JSON they fit into a line."""
said_by: ContextVar[tuple[Any, ...]] = ContextVar("said_by", default=())
"""In a process that does several attempts at once: the one that says something, as `Output.attribute` takes it."""
_NO_RECORD = (AttributeError, KeyError, OSError, OverflowError, TypeError, ValueError)
"""What a record raises that was cut, or that the work has written itself."""
_READ_BYTES = 64 * 1024  # the most that a pipe holds: one read gets all that was written before it


class Output:
    """The worker's end of the pipe."""

    def __init__(self, pipe: int, mark: str) -> None:
        os.set_blocking(pipe, False)
        self._pipe = pipe
        self._mark = mark.encode()
        self._rest = b""
        self._attempt: tuple[Any, ...] = ()
        self._any = select.poll()
        self._any.register(pipe, select.POLLIN)
        self._reading = threading.Lock()

    def fileno(self) -> int:
        """Return the file descriptor, for a selector."""
        return self._pipe

    def attribute(self, *attempt: Any) -> None:
        """Pass on what has been said until now as before, and from here on as said by another attempt.

        Args:
            attempt: its job's id, its number, its traceparent and its job's kind. None of them: what is said between
                two attempts.
        """
        if self._any.poll(0):
            self.read()
        if self._rest:
            self._pass_on(self._rest)
            self._rest = b""
        self._attempt = attempt

    def wait_until_read(self, seconds: float) -> None:
        """Wait until another thread has passed on all that was written, for so many seconds at most."""
        until = time.monotonic() + seconds
        unread = select.poll()  # one of its own, for no two threads may wait for the same
        unread.register(self._pipe, select.POLLIN)
        while any(event & select.POLLIN for _, event in unread.poll(0)) and time.monotonic() < until:
            time.sleep(0.001)
        with self._reading:
            pass

    def read(self) -> bool:
        """Pass on the lines that have been written. Return False once nobody can write any more."""
        with self._reading:
            return self._read()

    def _read(self) -> bool:
        try:
            data = os.read(self._pipe, _READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._pass_on(line)
        if len(self._rest) > MAX_LINE_BYTES:
            self._pass_on(self._rest)
            self._rest = b""
        return True

    def close(self) -> None:
        """Pass on what is left, and close the pipe."""
        self.attribute()
        os.close(self._pipe)

    def _pass_on(self, line: bytes) -> None:
        printed, mark, record = line.partition(self._mark)
        if printed or not mark:
            _say(printed.decode(errors="backslashreplace"), logs.about(*self._attempt))
        if mark:
            self._pass_on_record(record)

    def _pass_on_record(self, record: bytes) -> None:
        about = logs.about(*self._attempt)
        try:
            said = json.loads(record)
            about = logs.about(*(said.pop("by") or self._attempt))
            text = job_log.text_of(said)
            logs.said_by_work(**said | about)
        except _NO_RECORD:
            _say(record.decode(errors="backslashreplace"), about)
        else:
            job_log.add(about, text)


def _say(line: str, about: dict[str, Any]) -> None:
    logs.said_by_work(line, **about)
    job_log.add(about, line)


class ToWorker(logging.Handler):
    """The work's end: sends each record of `logging` to the worker."""

    def __init__(self, mark: str) -> None:
        super().__init__()
        self._mark = mark

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record to standard error, which is the pipe."""
        try:
            said = {
                "message": record.getMessage()[:MAX_LOGGED],
                "severity": record.levelname,
                "logger": record.name,
                "at": record.created,
                "exception": logs.traceback_of(record)[-MAX_LOGGED // 4 :],
            }
            _write(self._mark, said)
        except Exception:
            self.handleError(record)


class Printed(io.TextIOBase):
    """Standard output of a process that does several attempts at once: each line goes out with who has printed it.

    What does not come through `write`, as from a program that is started, goes out as it is.
    """

    encoding = "utf-8"

    def __init__(self, mark: str) -> None:
        super().__init__()
        self._mark = mark
        self._begun: dict[tuple[Any, ...], str] = {}
        self.buffer = io.FileIO(1, "w", closefd=False)

    def fileno(self) -> int:
        return 1

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Write the lines that are whole now."""
        by = said_by.get()
        *lines, rest = (self._begun.pop(by, "") + text).split("\n")
        if len(rest) > MAX_LOGGED:
            lines, rest = [*lines, rest], ""
        if rest:
            self._begun[by] = rest
        for line in lines:
            for begin in range(0, len(line) or 1, MAX_LOGGED):
                _write(self._mark, {"message": line[begin : begin + MAX_LOGGED], "logger": logs.OUTPUT})
        return len(text)

    def end_line(self) -> None:
        """Write the line that the present attempt has begun."""
        if said_by.get() in self._begun:
            self.write("\n")


def _write(mark: str, said: dict[str, Any]) -> None:
    line = memoryview(f"{mark}{json.dumps(said | {'by': said_by.get()})}\n".encode())
    while line:
        line = line[os.write(2, line) :]


def reopen() -> None:
    """Open again what the attempt before has closed or taken away."""
    for number, name in (1, "stdout"), (2, "stderr"):
        stream = getattr(sys, name)
        if stream is None or getattr(stream, "closed", False):
            with contextlib.suppress(OSError):
                stream = open(number, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
                setattr(sys, name, stream)


def flush() -> None:
    """Write what the work has printed and is not written yet."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:  # noqa: S110 - the work may have closed it, or put anything in its place
        pass
