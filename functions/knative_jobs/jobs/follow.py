"""Following one job: its record now, and each time that it has changed, woken by Redis."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from knative_jobs.jobs import lifecycle
from knative_jobs.runtime.errors import JobError, UnavailableError
from knative_jobs.runtime.greenlets import wait_for
from knative_jobs.runtime.job_id import JobId
from knative_jobs.runtime.job_status import ENDED
from knative_jobs.runtime.shutdown import stopping
from knative_jobs.store import subscriptions

T = TypeVar("T")
MAX_WAIT_SECONDS = 60
LOOK_AGAIN_SECONDS = 15
"""A record is read again after so long, whether or not anybody said that it changed: during a failover the last reading
may have been of a replica that was behind."""
AWAY_SECONDS = 1
"""The pause before the record is read again while Redis is away, as during a failover."""


def until_ended(job_id: JobId, wait_s: float = 0) -> bytes:
    """Return the record of a job: once it has ended, or as it is after `wait_s` seconds.

    Raises:
        NotFoundError: there is no such job.
        UnavailableError: Redis is away.
    """
    record = lifecycle.record(job_id)
    if wait_s and not ended(record):
        for found in records(job_id, wait_s):
            if found and ended(found):
                return found
        record = lifecycle.record(job_id)  # what has changed while Redis was away was not heard of
    return record


def end_of(job_id: JobId, wait_s: float) -> bytes | None:
    """Return the record of a job once it has ended. None: it has not after so many seconds, or Redis is away."""
    try:
        record = until_ended(job_id, wait_s)
    except JobError:
        return None
    return record if ended(record) else None


def records(job_id: JobId, seconds: float) -> Iterator[bytes | None]:
    """Yield the record of a job, and again whenever it has changed, until the job has ended.

    None is yielded after LOOK_AGAIN_SECONDS without a change, and while Redis is away.

    Args:
        job_id: the job.
        seconds: how long to go on at most. It also ends when this process is told to stop.

    Raises:
        NotFoundError: there is no such job, or its retention is over.
        UnavailableError: Redis is away as this begins.
    """
    known = None
    for record in readings(job_id, seconds, lambda: lifecycle.record(job_id)):
        if record is None:
            yield None
        elif record != known:
            known = record
            yield record
            if ended(record):
                return


def readings(job_id: JobId, seconds: float, read: Callable[[], T]) -> Iterator[T | None]:
    """Yield what `read` returns, again whenever a job may have changed.

    None is yielded after LOOK_AGAIN_SECONDS without a change, before what is read then, and while Redis is away.

    Args:
        job_id: the job.
        seconds: how long to go on at most. It also ends when this process is told to stop.
        read: reads something of the job; raises what this raises, and UnavailableError while Redis is away.

    Raises:
        UnavailableError: Redis is away as this begins.
    """
    ends_at = time.monotonic() + seconds
    changed = wait_for(subscriptions.subscribe(job_id))
    try:
        while (left_s := ends_at - time.monotonic()) > 0 and not stopping.is_set():
            if not wait_for(_set(changed, min(left_s, LOOK_AGAIN_SECONDS))):
                yield None
            changed.clear()
            try:
                found = read()
            except UnavailableError:
                yield None
                wait_for(asyncio.sleep(AWAY_SECONDS))
                changed.set()
                continue
            yield found
    finally:
        wait_for(subscriptions.unsubscribe(job_id, changed))


def ended(record: bytes) -> bool:
    """Tell whether the job of a public record has ended."""
    return json.loads(record)["status"] in ENDED


async def _set(changed: asyncio.Event, seconds: float) -> bool:
    """Wait until the event is set; False when it is not after so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            return await changed.wait()
    except TimeoutError:
        return False
