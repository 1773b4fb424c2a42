"""Announcing due jobs to the Broker: which jobs need an event, and when they need another.

What an event must do depends on the subscriber of the Trigger:

- The worker Service does the job of an event and then whatever else is due. Events only have to wake enough workers:
  the first 32 due jobs have one each, in a longer queue those that double it, so workers grow with its logarithm.
- A JobSink starts a Kubernetes Job for each event, which does one job. So every job needs an event of its own. Redis
  keeps which jobs are announced and not claimed yet, at most JOBSINK_MAX_PENDING: each claim makes room for the next.

Each kind of job has a Trigger and a subscriber of its own, and is announced by itself.

No event is relied on. What nobody has claimed is announced again: by the process that announced it, within seconds; by
the sweeper; for a JobSink, where each announcement costs a pod, after half a minute and then at doubling intervals.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable

from knative_jobs.events import emit
from knative_jobs.runtime import greenlets, job_kind
from knative_jobs.runtime.errors import UnavailableError
from knative_jobs.runtime.settings import settings
from knative_jobs.runtime.shutdown import stopping
from knative_jobs.store import state

UNCLAIMED_SECONDS = 2
"""To the sweeper, a job that has been due for so long has no event on its way to a worker, or none to be relied on."""
LOOK_AGAIN_SECONDS = 4
"""So long after the Broker has answered, the process that emitted looks whether jobs wait that nobody claimed."""
MOST_ANNOUNCED = 10
"""Jobs of a kind announced again at once. More is not needed: a worker that wakes goes on until nothing is due."""
JOBSINK_REPEAT_SECONDS = 30
"""A Kubernetes Job that has claimed nothing for so long may never do so: its job is announced again."""
JOBSINK_LONGEST_SECONDS = 3600
"""The interval of these repetitions doubles up to this. A cluster that is full gets few Kubernetes Jobs more."""

NEAR_SECONDS = 70
"""A job whose time is so near is announced by the process that submitted it. The sweeper, which comes once a minute,
knows all that become due until it comes again."""
DROPPED_SECONDS = 0.2
"""Dropped events are counted in Redis at most so often."""

_log = logging.getLogger("knative_jobs.events")
_looks_again = threading.Lock()
_counts_dropped = threading.Lock()
_times: set[float] = set()
"""When jobs become due that this process is to announce, in seconds since the epoch."""
_timing = threading.Lock()


def needs_event(queue: int) -> bool:
    """Return whether the worker Service needs the event of a job when so many are due before it.

    It does for the first 32, then at powers of two. Of jobs that take a millisecond, the workers that are awake have
    taken the first ones before another worker comes for them, so it comes for a later one.
    """
    return queue < emit.MAX_OPEN or queue.bit_count() == 1


def announce(
    kind: str, jobs: Iterable[tuple[str, int, bytes]], due_before: int, traceparent: str | None = None
) -> None:
    """Announce jobs of one kind that have become due, as far as they need an event. Returns at once.

    Args:
        kind: of the jobs.
        jobs: (id, number of the next attempt, public record as JSON) of each, in the order in which they are due.
        due_before: how many jobs of the kind are due before the first of them.
        traceparent: of the request that submitted all of them. None: each record says its own.
    """
    if kind in settings().jobsink_kinds:
        announce_pending_soon()
    else:
        needed = (job for queue, job in enumerate(jobs, due_before) if needs_event(queue))
        events = (emit.Submitted(job_id, kind, attempt, record) for job_id, attempt, record in needed)
        _events.emit(events, traceparent, _look_again_soon)


def announce_at(times: Iterable[float]) -> None:
    """Announce jobs of any kind when they become due at one of these times. Returns at once.

    This process does that itself where the time is near; every other is for the sweeper. It may end meanwhile, then the
    sweeper announces them within a minute.

    Args:
        times: seconds since the epoch.
    """
    now = time.time()
    near = {math.ceil(at * 2) / 2 for at in times if at < now + NEAR_SECONDS}
    near |= {at + UNCLAIMED_SECONDS for at in near}  # once more, for a Redis whose clock is behind
    with _timing:
        starts = not _times
        _times.update(near)
    if near and starts:
        greenlets.start(_announce_in_time)


def announce_due() -> None:
    """Announce jobs that have become due, of any kind, when it is not known which. Returns at once."""
    announce_pending_soon()
    greenlets.start(_announce_due_or_log, 0, emit.MAX_OPEN)


def announce_unclaimed() -> bool:
    """Announce the jobs that nobody has claimed for too long.

    Returns:
        Whether jobs are due within a minute, run, or have a completion event that is not accepted yet.

    Raises:
        UnavailableError: Redis is away.
    """
    open_for_services, overdue = state.overdue(_service_kinds(), UNCLAIMED_SECONDS, MOST_ANNOUNCED)
    _emit(overdue)
    if not settings().jobsink_kinds:
        return open_for_services
    open_for_jobsinks, _ = state.overdue(settings().jobsink_kinds, 0, 0)
    _announce_pending()
    return open_for_services or open_for_jobsinks


def announce_pending_soon() -> None:
    """Announce as many due jobs as may be pending, of the kinds whose subscriber is a JobSink. Returns at once.

    Whoever makes such a job due calls this, and so does every Kubernetes Job when it has claimed one and when it ends.
    """
    if settings().jobsink_kinds and settings().k_sink:
        greenlets.start(_announce_pending_or_log)


def hand_over(kind: str) -> None:
    """Announce jobs that are due, for a worker that stops: the first of its kind, and one that is further back.

    The first may be taken by a worker that goes on, before its event has brought another.

    Raises:
        UnavailableError: Redis is away.
    """
    _, due = state.overdue([kind], 0, emit.MAX_OPEN)
    _emit(due[:1] + due[1:][-1:])


def _count_dropped_soon() -> None:
    if _counts_dropped.acquire(blocking=False):
        greenlets.start(_count_dropped)


def _count_dropped() -> None:
    """Count the dropped events of a moment together: a Broker that is away must not cost a call of Redis for each."""
    try:
        greenlets.wait_for(asyncio.sleep(DROPPED_SECONDS))
    finally:
        _counts_dropped.release()
    try:
        state.count_dropped(_events.take_uncounted())
    except UnavailableError as error:
        _log.warning("dropped events were not counted: %s", error)


_events = emit.SubmittedEvents(_count_dropped_soon)


def _service_kinds() -> list[str]:
    return [kind for kind in (*settings().job_kinds, job_kind.BULK) if kind not in settings().jobsink_kinds]


def _emit(jobs: Iterable[state.Due], answered: Callable[[], None] | None = None) -> None:
    events = (emit.Submitted(job.id, job.kind, job.attempts + 1, job.record) for job in jobs)
    _events.emit(events, answered=answered)


def _announce_pending() -> None:
    s = settings()
    _emit(state.announce(s.jobsink_kinds, s.jobsink_max_pending, JOBSINK_REPEAT_SECONDS, JOBSINK_LONGEST_SECONDS))


def _announce_pending_or_log() -> None:
    try:
        _announce_pending()
    except Exception as error:
        _log.warning("due jobs were not announced, the sweeper will: %s", error)


def _announce_due_or_log(for_s: float, most: int, answered: Callable[[], None] | None = None) -> None:
    try:
        _, due = state.overdue(_service_kinds(), for_s, most)
    except Exception as error:
        _log.warning("due jobs were not announced, the sweeper will: %s", error)
    else:
        _emit(due, answered)


def _announce_in_time() -> None:
    """Announce what is due at each of `_times`, until there is none left, or this process is to end."""
    while not stopping.is_set():
        greenlets.wait_for(asyncio.sleep(0.2))
        with _timing:
            reached = {at for at in _times if at <= time.time()}
            _times.difference_update(reached)
            is_over = not _times
        if reached:
            announce_pending_soon()
            _announce_due_or_log(UNCLAIMED_SECONDS, emit.MAX_OPEN)
        if is_over:
            return


def _look_again_soon() -> None:
    if _looks_again.acquire(blocking=False):
        greenlets.start(_look_again)


def _look_again() -> None:
    """Announce the jobs that nobody claimed although the Broker has answered.

    It answers at once where there is no Trigger yet, as right after a deployment. The default Broker answers only after
    the worker, so that a worker which is slow to start causes no second event.
    """
    try:
        looks_at = time.monotonic() + LOOK_AGAIN_SECONDS
        while time.monotonic() < looks_at and not stopping.is_set():
            greenlets.wait_for(asyncio.sleep(0.2))  # so that the end of this process does not wait for long
        if stopping.is_set():
            return
    finally:
        _looks_again.release()
    _announce_due_or_log(LOOK_AGAIN_SECONDS, MOST_ANNOUNCED, _look_again_soon)
