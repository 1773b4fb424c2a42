"""The user's own work: what it gets, what it may raise, and how it is found.

A work function takes a Job and returns any JSON value, which becomes the job's `result`. What it raises becomes the
job's `error`. What it returns is awaited where that can be, so it may be `async def`, under any decorator.
"""

import importlib
import inspect
import math
import time
from collections.abc import Callable
from typing import Any, Protocol, cast

from knative_jobs.work import messages

PROGRESS_SECONDS = 0.1
"""Progress is reported at most so often; calls in between cost next to nothing."""

MAX_PROGRESS_MESSAGE = 200

Work = Callable[["Job"], Any]


class Retry(Exception):  # noqa: N818 - it is an instruction rather than an error
    """Raised by work: try again after so many seconds. Counts as an attempt.

    Raises:
        ValueError: `after` is infinite or not a number.
    """

    def __init__(self, after: float) -> None:
        if not math.isfinite(after):
            raise ValueError(f"Retry(after={after}): after must be a finite number of seconds")
        super().__init__(f"to be tried again after {after} seconds")
        self.after = max(0.0, float(after))


class Fail(Exception):  # noqa: N818
    """Raised by work: the job has failed, and trying again would not help."""


class Cancelled(Exception):  # noqa: N818
    """Raised by `Job.progress` when somebody asked for the job to be cancelled. Let it pass."""


class Continue(Exception):  # noqa: N818
    """Raised by work: hand the job back, to be continued at once by another attempt from its last checkpoint.

    That is no failed attempt, and the job has all its attempts again. Without a checkpoint that differs from the one it
    began with, it is a failed attempt like any other.
    """


class Worker(Protocol):
    """What holds the claim on a job, as the job sees it."""

    def report(self, fraction: float, message: str) -> None:
        """Record progress."""

    def cancel_requested(self) -> bool:
        """Return whether somebody asked for the job to be cancelled, or the attempt has ended."""

    def keep(self, checkpoint: str) -> None:
        """Record a checkpoint, given as JSON."""

    def is_stopping(self) -> bool:
        """Return whether the worker is being stopped."""

    def time_left(self) -> float:
        """Return how many seconds the attempt may go on."""


class Job:
    """One attempt of a job, as the work function sees it. `start` and `end` are as they were submitted.

    It is for the process that got it, threads included. A child made by `os.fork`, or by multiprocessing with that,
    cannot report progress nor ask whether the job is cancelled: that is a RuntimeError there.
    """

    def __init__(
        self,
        worker: Worker,
        id: str,  # noqa: A002
        attempt: int,
        start: str | float | None,
        end: str | float | None,
        traceparent: str = "",
        kind: str = "default",
        input: Any = None,  # noqa: A002
        checkpoint_value: Any = None,
    ) -> None:
        self.id = id
        self.attempt = attempt
        """1 for the first attempt. It grows with each further one."""
        self.start: Any = start
        """None, as `end`: the job has neither. Only a job of another kind than `default` may be without."""
        self.end: Any = end
        self.kind = kind
        self.input = input
        """What was submitted as `input`, parsed from JSON. None: that was null, or the job has none."""
        self.traceparent = traceparent
        """The trace that this attempt belongs to, as the header of that name has it; empty when it belongs to none."""
        self.checkpoint_value = checkpoint_value
        """The last checkpoint of this job, of this attempt or one before it. None: there is none."""
        self._worker = worker
        self._reported_at = float("-inf")

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked for the job to be cancelled; known within a second or so.

        True too once the attempt has ended: a thread that the work has left running should stop.
        """
        return self._worker.cancel_requested()

    @property
    def stopping(self) -> bool:
        """Whether the worker is being stopped, as it is when Knative scales it down; known within a second or so.

        The work may go on for `time_left`; then the job is handed back. Set a checkpoint and raise Continue before.
        """
        return self._worker.is_stopping()

    @property
    def time_left(self) -> float:
        """How many seconds this attempt may go on: until its time limit, or until a worker that stops hands it back."""
        return self._worker.time_left()

    def checkpoint(self, value: Any) -> None:
        """Keep a value that a later attempt can go on from: it finds it in `checkpoint_value`.

        It is stored within a second, and with the end of the attempt, however that ends. Only the last one is kept.

        Args:
            value: any JSON value of up to MAX_CHECKPOINT_BYTES.

        Raises:
            Cancelled: somebody asked for the job to be cancelled, or the attempt has ended.
            ValueError, TypeError: the value is too long, or is not JSON.
        """
        if self.cancelled:
            raise Cancelled("cancelled on request")
        self._worker.keep(messages.result_text(value, messages.MAX_CHECKPOINT_BYTES))
        self.checkpoint_value = value

    def progress(self, fraction: float, message: str = "") -> None:
        """Report how far the work is, from 0 to 1, with a word about it, which is cut to MAX_PROGRESS_MESSAGE.

        Raises:
            Cancelled: somebody asked for the job to be cancelled, or the attempt has ended.
        """
        if self.cancelled:
            raise Cancelled("cancelled on request")
        if time.monotonic() - self._reported_at < PROGRESS_SECONDS and fraction < 1:
            return
        self._reported_at = time.monotonic()
        try:
            text = str(message)[:MAX_PROGRESS_MESSAGE]
        except Exception as error:  # what cannot be shown is no reason for the work to fail
            text = f"({type(message).__name__}, whose __str__ raised {type(error).__name__})"
        self._worker.report(min(1.0, max(0.0, float(fraction))), text)


def find(name: str, stand_in_seconds: float) -> Work:
    """Return the work function named as `package.module:function`; the stand-in when the name is empty.

    Raises:
        ImportError: the name has another form, or there is nothing to call there.
        Exception: whatever importing the module raises.
    """
    if not name:
        return lambda job: _stand_in(job, stand_in_seconds)
    module, _, function = name.partition(":")
    if not (module and function):
        raise ImportError(f"JOB_WORK={name!r} is not of the form package.module:function")
    found: Any = getattr(importlib.import_module(module), function, None)
    if not callable(found):
        raise ImportError(f"there is no function {function!r} in {module}")
    if inspect.iscoroutinefunction(found):
        import asyncio  # noqa: F401 - it takes longer to import than all the rest, and no job shall wait for it
    return cast(Work, found)


def _stand_in(job: Job, seconds: float) -> None:
    """Wait, in place of work, and say how far the waiting is."""
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < seconds:
        job.progress(waited / seconds, "waiting")
        time.sleep(min(seconds - waited, max(seconds / 20, PROGRESS_SECONDS)))
