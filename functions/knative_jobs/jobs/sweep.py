"""The sweep: repairs what a fault has left behind.

It announces due jobs again that no worker has claimed, takes back jobs whose lease has expired, sends completion events
that are still in the outbox, and removes jobs whose retention is over. It also repairs the indexes after the clock of
Redis went back, or after keys were removed or overwritten.
"""

import json
import logging
import time

from knative_jobs.jobs import announcement, outbox
from knative_jobs.runtime.errors import UnavailableError
from knative_jobs.runtime.logs import about
from knative_jobs.runtime.settings import settings
from knative_jobs.runtime.shutdown import stopping
from knative_jobs.store import state

PASS_SECONDS = 2
"""The pause between two passes of a sweep, and how long one pass goes on removing jobs whose retention is over."""

_LEASE_EXPIRED = json.dumps({"type": "LeaseExpired", "message": "the worker was not heard of for as long as its lease"})
_log = logging.getLogger("knative_jobs.sweeper")
_known_foreign: set[str] = set()
"""Keys that the log has already told of."""


def sweep() -> None:
    """Make one pass, and further ones for SWEEP_SECONDS while jobs wait or run, or are to be announced.

    So a failure is mended in seconds while there is work, and nothing is awake while there is none. Redis itself may be
    what fails: a pass that does not reach it is followed by another all the same.

    Raises:
        UnavailableError: Redis was away to the end.
    """
    ends_at = time.monotonic() + settings().sweep_seconds
    more = True
    while more:
        try:
            more = sweep_once()
        except UnavailableError as error:
            if time.monotonic() >= ends_at:
                raise
            _log.warning("%s", error)
        if time.monotonic() >= ends_at or stopping.wait(PASS_SECONDS):
            return


def sweep_once() -> bool:
    """Make one pass. Return whether jobs wait, run, are to be announced, or are to be removed.

    Raises:
        UnavailableError: Redis is away.
    """
    if back_s := state.follow_clock(outbox.VISIBILITY_SECONDS):
        _log.warning("the clock of Redis went back by %.0f seconds; what waits for a time was moved with it", back_s)
    for job in state.reclaim(_LEASE_EXPIRED):
        extra = about(job.id, 0, job.traceparent, job.kind)
        _log.warning("job %s: its lease ran out, now %s", job.id, job.status, extra=extra)
    outbox.announce_soon()
    some_are_open = announcement.announce_unclaimed()
    _check()
    return _purge() or some_are_open


def _purge() -> bool:
    """Remove the jobs whose retention is over. Return whether there may be more, when that takes too long."""
    removed, ends_at = 0, time.monotonic() + PASS_SECONDS
    while True:
        began = time.monotonic()
        found = state.purge()
        removed += found
        more = found == state.PURGED_AT_ONCE
        # As long a pause as the removal took: half of Redis's time is left to everybody else.
        if not more or time.monotonic() >= ends_at or stopping.wait(time.monotonic() - began):
            break
    if removed:
        _log.info("%s jobs removed, their retention is over", removed)
    return more


def _check() -> None:
    """Make the indexes fit the records, and say in the log what did not."""
    found = state.check()
    if found.removed:
        _log.warning("the records of %s are gone; the lists no longer have them", _some(found.removed))
    if found.mended:
        what = "the lists and the records of %s did not agree; the lists follow the records now"
        _log.warning(what, _some(found.mended))
    for key in set(found.foreign) - _known_foreign:
        _log.warning("one of this API's keys held a value of the wrong type; that value is under %s now", key)
    _known_foreign.update(found.foreign)


def _some(jobs: list[str]) -> str:
    """Return how many jobs these are, and the ids of the first."""
    more = ", ..." if len(jobs) > 10 else ""
    return f"{len(jobs)} jobs ({', '.join(jobs[:10])}{more})"
