"""For tests of your own work: one attempt of a job, in this process, without Redis."""

import json
import time
from dataclasses import dataclass, field
from typing import Any

from knative_jobs.work.api import Job, Work
from knative_jobs.work.one_attempt import do


@dataclass
class Run:
    """What came of an attempt."""

    outcome: str
    """`complete`; `error`: it is tried again while attempts are left; `failed`: it is not; `cancelled`; or `continue`:
    it goes on in another attempt, from the last of `checkpoints`."""
    result: Any = None
    """Of a complete job, as whoever asks for it reads it: from JSON."""
    error: dict[str, str] | None = None
    """Otherwise `type`, `message` and `traceback`, as in the record."""
    retry_after_s: float | None = None
    """What `Retry` asked for, in seconds."""
    progress: list[tuple[float, str]] = field(default_factory=list)
    """What was reported, in its order. A worker leaves out what comes faster than it is stored."""
    checkpoints: list[Any] = field(default_factory=list)
    """All checkpoints, in their order. A worker stores the last one of each second."""


def run(
    work: Work,
    *,
    start: str | float | None = None,
    end: str | float | None = None,
    input: Any = None,  # noqa: A002
    kind: str = "default",
    attempt: int = 1,
    cancel_after: int | None = None,
    checkpoint: Any = None,
    stopping: bool = False,
    seconds: float = 300,
) -> Run:
    """Have a work function do one attempt of a job.

    Args:
        work: the function, sync or async.
        start: of the job; so are `end`, `input` and `kind`.
        end: see `start`.
        input: any JSON value.
        kind: see `start`.
        attempt: its number.
        cancel_after: somebody asks for the job to be cancelled once so much progress was reported; 0: before it begins.
        checkpoint: what the job finds in `checkpoint_value`.
        stopping: what it finds in `stopping`.
        seconds: how long it may take, for `time_left`. Nothing ends it then.

    Raises:
        TypeError: `input` or `checkpoint` is not JSON.
    """
    worker = _Worker(cancel_after, time.monotonic() + seconds, stopping=stopping)
    given, checkpoint = json.loads(json.dumps([input, checkpoint]))
    job = _Job(worker, "0e399b77-54a3-486b-b458-49fc4545f2da", attempt, start, end, "", kind, given, checkpoint)
    outcome, details = do(work, job)
    ended = Run(outcome, progress=worker.reported, checkpoints=worker.kept)
    if outcome == "complete":
        ended.result = json.loads(details[0])
    elif details:
        ended.error, *after = details
        ended.retry_after_s = after[0] if after else None
    return ended


class _Worker:
    def __init__(self, cancel_after: int | None, ends_at: float, *, stopping: bool) -> None:
        self.reported: list[tuple[float, str]] = []
        self.kept: list[Any] = []
        self._cancel_after = cancel_after
        self._ends_at = ends_at
        self._stopping = stopping

    def report(self, fraction: float, message: str) -> None:
        self.reported.append((fraction, message))

    def cancel_requested(self) -> bool:
        return self._cancel_after is not None and len(self.reported) >= self._cancel_after

    def keep(self, checkpoint: str) -> None:
        self.kept.append(json.loads(checkpoint))

    def is_stopping(self) -> bool:
        return self._stopping

    def time_left(self) -> float:
        return max(0.0, self._ends_at - time.monotonic())


class _Job(Job):
    """A job whose every progress is recorded, however fast it comes."""

    def progress(self, fraction: float, message: str = "") -> None:
        self._reported_at = float("-inf")
        super().progress(fraction, message)
