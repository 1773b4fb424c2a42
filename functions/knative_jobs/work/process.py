"""The process that does the user's work: `python -m knative_jobs.work.process SOCKET PIPE MARK`.

It is apart from the worker that holds the claim, so that the heartbeat goes on whatever the work does (holds the GIL,
blocks in C), an attempt can be ended when its time is over, and work that takes its process down does not take the
worker with it. `work.messages` says what the two tell each other over the socket, `work.output` how what the work says
gets to the worker. The pipe is open for as long as the worker lives.
"""

import contextlib
import inspect
import json
import logging
import math
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Awaitable
from typing import Any, NoReturn

from knative_jobs.runtime.settings import settings
from knative_jobs.work.api import Cancelled, Fail, Job, Retry, Work, find
from knative_jobs.work.messages import ABSENT, MAX_ERROR_TEXT, Channel, result_text, storable
from knative_jobs.work.output import ToWorker

_MAX_MESSAGE = 1000
_TRACEBACK_LINES = 12


class _Worker:
    """The worker, as one attempt reaches it: until the attempt has ended, and from the process that does it.

    A thread that the work has left running, or a child that it has forked, would else read or write what belongs to the
    next attempt. No thread waits for another here: who finds the channel in use does without it.
    """

    def __init__(self, channel: Channel, job_id: str, attempt: int) -> None:
        self._channel = channel
        self._attempt = (job_id, attempt)
        self._process = os.getpid()
        self._in_use = threading.Lock()
        self._open = True
        self._cancel = False

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
        if not self._cancel and self._in_use.acquire(blocking=False):
            try:
                more = self._open
                while more and not self._cancel:
                    if message := self._channel.received():
                        self._cancel = message == ["cancel", *self._attempt]
                    else:
                        more = self._channel.read(wait=False)
            finally:
                self._in_use.release()
        return self._cancel

    def close(self) -> None:
        """End the attempt for all that still have the job: to them it is cancelled from now on."""
        with self._in_use:
            self._open = False
            self._cancel = True

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError("only the process that was given the job has a connection to the worker, no forked one")


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
        _end_here_unless(os.getpid() == process)
    except BaseException as error:
        _end_here_unless(os.getpid() == process, error)
        return _outcome_of(error)
    try:
        return "complete", [result_text(result)]
    except Exception as error:
        message = f"the result cannot be stored: {error}"[:_MAX_MESSAGE]
        return "failed", [{"type": type(error).__name__, "message": storable(message)}]


def _outcome_of(error: BaseException) -> tuple[str, list[Any]]:
    match error:
        case Cancelled():
            return "cancelled", []
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
    _flush_output()
    os._exit(code if isinstance(code, int) else 1 if code else 0)


def main() -> None:
    """Serve one worker until it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker to act upon
    messages, alive, mark = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    for descriptor in (messages, alive):
        os.set_inheritable(descriptor, False)  # not for the programs that the work starts
    threading.Thread(target=_die_with_worker, args=[alive], daemon=True).start()
    worker = Channel(socket.socket(fileno=messages))
    _log_to_worker(mark)
    try:
        _limit_memory(settings().work_memory_mib)
        work = find(settings().job_work, settings().job_seconds)
    except BaseException as error:
        traceback.print_exc()
        worker.send("unusable", f"{type(error).__name__}: {error}")
        return
    worker.send("ready")
    while True:
        match worker.receive():
            case ["work", job_id, attempt, kind, start, end, numbers, given, traceparent]:
                handle = _Worker(worker, job_id, attempt)
                _open_output()
                start, end = _range(start, end, numbers)
                job = Job(handle, job_id, attempt, start, end, traceparent, kind, json.loads(given) if given else None)
                word, details = do(work, job)

                handle.close()
                _flush_output()
                worker.send(word, job_id, attempt, *details)


def _range(start: str, end: str, numbers: str) -> tuple[str | float | None, str | float | None]:
    """Return start and end as they were submitted, from what a claim tells of them."""
    if numbers == ABSENT:
        return None, None
    return (json.loads(start) if "start" in numbers else start), (json.loads(end) if "end" in numbers else end)


def _limit_memory(mib: int) -> None:
    """Limit the memory that this process, and each that it starts, can have.

    RLIMIT_DATA counts what a process may write to and shares with nobody, which is close to what it uses. RLIMIT_AS
    would count the address space too that libraries (allocators, numpy, CUDA) reserve and never touch. Linux alone
    enforces either.
    """
    if mib:
        import resource

        most, (_, hard) = mib * 1024 * 1024, resource.getrlimit(resource.RLIMIT_DATA)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _log_to_worker(mark: str) -> None:
    """Have what is logged or printed go to the worker, each line at once and as a whole."""
    logging.basicConfig(level=logging.INFO, handlers=[ToWorker(mark)])
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True, write_through=False)  # type: ignore[union-attr]


def _open_output() -> None:
    """Open again what the attempt before has closed or taken away."""
    for number, name in (1, "stdout"), (2, "stderr"):
        stream = getattr(sys, name)
        if stream is None or getattr(stream, "closed", False):
            with contextlib.suppress(OSError):
                stream = open(number, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
                setattr(sys, name, stream)


def _flush_output() -> None:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:  # noqa: S110 - the work may have closed it, or put anything in its place
        pass


def _die_with_worker(pipe: int) -> NoReturn:
    """Wait until the worker is gone, and end this whole process group."""
    os.read(pipe, 1)
    os.killpg(0, signal.SIGKILL)
    raise AssertionError


if __name__ == "__main__":
    with contextlib.suppress(EOFError, OSError):  # the worker is gone
        main()
