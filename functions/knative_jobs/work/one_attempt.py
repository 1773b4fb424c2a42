"""One attempt, in the process that does the work: what the work may reach of its worker, and what came of it."""

import inspect
import json
import math
import os
import threading
import time
import traceback
from collections.abc import Awaitable
from typing import Any

from knative_jobs.work import output
from knative_jobs.work.api import Cancelled, Continue, Fail, Job, Retry, Work
from knative_jobs.work.messages import ABSENT, MAX_ERROR_TEXT, Channel, result_text, storable

_MAX_MESSAGE = 1000
_TRACEBACK_LINES = 12


class Handle:
    """The worker, as one attempt reaches it: until the attempt has ended, and from the process that does it.

    A thread that the work has left running, or a child that it has forked, would else read or write what belongs to the
    next attempt. No thread waits for another here: who finds the channel in use does without it.
    """

    def __init__(self, channel: Channel, job_id: str, attempt: int, seconds: float) -> None:
        """Let the attempt go on for so many seconds."""
        self._channel = channel
        self._ends_at = time.monotonic() + seconds
        self._stopping = False
        self._attempt = (job_id, attempt)
        self._process = os.getpid()
        self._in_use = threading.Lock()
        self._open = True
        self._cancel = False
        self.abandoned = False
        """Whether the worker has closed the channel: nobody waits for what comes of the attempt."""

    def report(self, fraction: float, message: str) -> None:
        self._check_process()
        if self._in_use.acquire(blocking=False):
            try:
                if self._open:
                    self._channel.send("progress", *self._attempt, fraction, message)
            finally:
                self._in_use.release()

    def cancel_requested(self) -> bool:
        self._check_process()
        if not self._cancel:
            self.listen()
        return self._cancel

    def keep(self, checkpoint: str) -> None:
        self._check_process()
        with self._in_use:
            if self._open:
                self._channel.send("checkpoint", *self._attempt, checkpoint)

    def is_stopping(self) -> bool:
        self._check_process()
        if not self._stopping:
            self.listen()
        return self._stopping

    def time_left(self) -> float:
        self.is_stopping()
        return max(0.0, self._ends_at - time.monotonic())

    def listen(self) -> None:
        """Read what the worker has sent, if nobody else is about to."""
        if self._in_use.acquire(blocking=False):
            try:
                while self._open and not self.abandoned:
                    if message := self._channel.received():
                        self._hear(message)
                    elif not self._channel.read(wait=False):
                        break
            except (EOFError, OSError):
                self.abandoned = self._cancel = True
            finally:
                self._in_use.release()

    def _hear(self, message: list[Any]) -> None:
        if message[1:3] != list(self._attempt):
            return
        match message:
            case ["cancel", *_]:
                self._cancel = True
            case ["stopping", _, _, int() | float() as seconds]:
                self._stopping = True
                self._ends_at = min(self._ends_at, time.monotonic() + seconds)

    def close(self) -> None:
        """End the attempt for all that still have the job: to them it is cancelled from now on."""
        with self._in_use:
            self._open = False
            self._cancel = True

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError("only the process that was given the job has a connection to the worker, no forked one")


def received(channel: Channel, message: list[Any] | None) -> tuple[Handle, Job] | None:
    """Return what a message that asks for work tells of, None for any other."""
    match message:
        case ["work", job_id, attempt, kind, start, end, numbers, given, traceparent, checkpoint, seconds]:
            handle = Handle(channel, job_id, attempt, seconds)
            start, end = _range(start, end, numbers)
            given, checkpoint = (json.loads(text) if text else None for text in (given, checkpoint))
            return handle, Job(handle, job_id, attempt, start, end, traceparent, kind, given, checkpoint)
    return None


def error_of(error: BaseException) -> dict[str, str]:
    """Describe an exception: its type, message and the last lines of its traceback, each bounded in size."""
    traceback.clear_frames(error.__traceback__)  # what is in their variables may be all of the memory
    try:
        message = str(error)
    except BaseException as why:
        message = f"(its message cannot be had: __str__ raised {type(why).__name__})"
    try:
        lines = "".join(traceback.format_exception(error)).rstrip().splitlines()[-_TRACEBACK_LINES:]
    except Exception as why:
        lines = [f"(its traceback cannot be had: {type(why).__name__})"]
    return {
        "type": storable(type(error).__name__[:_MAX_MESSAGE]),
        "message": storable(message[:_MAX_MESSAGE]),
        "traceback": storable("\n".join(lines)[-MAX_ERROR_TEXT:]),
    }


def do(work: Work, job: Job) -> tuple[str, list[Any]]:
    """Do the work of one attempt. Return its outcome, as the worker is told it: a word, and what goes with it.

    A child that the work has forked, and that returns from it, ends here.
    """
    process = os.getpid()
    try:
        result = work(job)
        if inspect.isawaitable(result):
            result = _await(result)
    except BaseException as error:
        _end_here_unless(os.getpid() == process, error)
        return _went_wrong(error)
    _end_here_unless(os.getpid() == process)
    return _returned(result)


async def do_on_loop(work: Work, job: Job) -> tuple[str, list[Any]]:
    """Do the same on the running event loop, beside other attempts."""
    process = os.getpid()
    try:
        result = work(job)
        if inspect.isawaitable(result):
            result = await result
    except BaseException as error:
        _end_here_unless(os.getpid() == process, error)
        return _went_wrong(error)
    _end_here_unless(os.getpid() == process)
    return _returned(result)


def _returned(result: Any) -> tuple[str, list[Any]]:
    try:
        return "complete", [result_text(result)]
    except Exception as error:
        message = f"the result cannot be stored: {error}"[:_MAX_MESSAGE]
        return "failed", [{"type": type(error).__name__, "message": storable(message)}]


def _went_wrong(error: BaseException) -> tuple[str, list[Any]]:
    match error:
        case Cancelled():
            return "cancelled", []
        case Continue():
            return "continue", []
        case Fail():
            return "failed", [error_of(error)]
        case Retry(after=float(seconds)) if 0 <= seconds < math.inf:
            return "error", [error_of(error), seconds]
        case _:
            return "error", [error_of(error), None]


def _await(awaitable: Awaitable[Any]) -> Any:
    import asyncio  # here, for it takes longer to import than all the rest

    async def wait() -> Any:
        return await awaitable

    return asyncio.run(wait())


def _end_here_unless(is_the_process: bool, error: BaseException | None = None) -> None:
    """End a forked child as the interpreter would, but for what belongs to its parent: exit handlers, open files."""
    if is_the_process:
        return
    code: object = error.code if isinstance(error, SystemExit) else 1 if error else 0
    if error and not isinstance(error, SystemExit):
        traceback.print_exception(error)
    output.flush()
    os._exit(code if isinstance(code, int) else 1 if code else 0)


def _range(start: str, end: str, numbers: str) -> tuple[str | float | None, str | float | None]:
    """Return start and end as they were submitted, from what a claim tells of them."""
    if numbers == ABSENT:
        return None, None
    return (json.loads(start) if "start" in numbers else start), (json.loads(end) if "end" in numbers else end)
