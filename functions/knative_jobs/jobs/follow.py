"""Following one job: its record now, and each time that it has changed, woken by Redis."""

import asyncio
import json
import re
import time
from collections.abc import Iterator

from knative_jobs.jobs import lifecycle
from knative_jobs.runtime.errors import InvalidError, JobError, UnavailableError
from knative_jobs.runtime.greenlets import wait_for
from knative_jobs.runtime.shutdown import stopping
from knative_jobs.store import subscriptions

ENDED = ("complete", "failed", "cancelled")
MAX_WAIT_SECONDS = 60
AWAY_SECONDS = 1
"""The pause before the record is read again while Redis is away, as during a failover."""
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")


def until_ended(job_id: str | None, wait: str | None) -> bytes:
    """Return the record of a job: at once, or once it has ended, or as it is after `wait` seconds.

    Raises:
        InvalidError: `job_id` is no UUID, or `wait` is no number from 0 to MAX_WAIT_SECONDS.
        NotFoundError: there is no such job.
        UnavailableError: Redis is away.
    """
    record = lifecycle.record(job_id)
    if wait is not None and (seconds := _seconds(wait)) and not ended(record):
        for found in records(lifecycle.parse_id(job_id), seconds, pause_s=seconds):
            if found and ended(found):
                return found
        record = lifecycle.record(job_id)  # what has changed while Redis was away was not heard of
    return record


def end_of(job_id: str, seconds: float) -> bytes | None:
    """Return the record of a job once it has ended. None: it has not after so many seconds, or Redis is away."""
    try:
        record = until_ended(job_id, str(seconds))
    except JobError:
        return None
    return record if ended(record) else None


def records(job_id: str, seconds: float, pause_s: float) -> Iterator[bytes | None]:
    """Yield the record of a job, and again whenever it has changed, until the job has ended.

    Args:
        job_id: the job.
        seconds: how long to go on at most. It also ends when this process is told to stop.
        pause_s: None is yielded after so many seconds without a change, and while Redis is away.

    Raises:
        NotFoundError: there is no such job, or its retention is over.
        UnavailableError: Redis is away as this begins.
    """
    ends_at = time.monotonic() + seconds
    changed = wait_for(subscriptions.subscribe(job_id))
    known = None
    try:
        while (left_s := ends_at - time.monotonic()) > 0 and not stopping.is_set():
            if not wait_for(_set(changed, min(left_s, pause_s))):
                yield None
                continue
            changed.clear()
            try:
                record = lifecycle.record(job_id)
            except UnavailableError:
                yield None
                wait_for(asyncio.sleep(AWAY_SECONDS))
                changed.set()
                continue
            if record != known:
                known = record
                yield record
                if ended(record):
                    return
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


def _seconds(wait: str) -> float:
    if not _NUMBER.fullmatch(wait) or not 0 <= float(wait) <= MAX_WAIT_SECONDS:
        raise InvalidError(f"wait is a number of seconds from 0 to {MAX_WAIT_SECONDS}, not {wait[:40]!r}.")
    return float(wait)
