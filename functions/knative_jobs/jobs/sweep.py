"""The sweep: what makes every promise come true when something else has failed.

It announces again the jobs that nobody claimed, takes back those whose worker is gone, announces how jobs ended where
nobody has, and removes those whose retention is over.
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
"""The pause between two passes of a sweep."""

_LEASE_EXPIRED = json.dumps({"type": "LeaseExpired", "message": "the worker was not heard of for as long as its lease"})
_log = logging.getLogger("knative_jobs.sweeper")


def sweep() -> None:
    """Make one pass, and further ones for SWEEP_SECONDS while jobs wait or run, or are to be announced.

    So a failure is mended in seconds while there is work, and nothing is awake while there is none. Redis itself may be
    what fails: a pass that does not reach it is followed by another all the same.

    Raises:
        UnavailableError: Redis was away to the end.
    """
    ends_at = time.monotonic() + settings().sweep_seconds
    open_jobs = 1
    while open_jobs:
        try:
            open_jobs = sweep_once()
        except UnavailableError as error:
            if time.monotonic() >= ends_at:
                raise
            _log.warning("%s", error)
        if time.monotonic() >= ends_at or stopping.wait(PASS_SECONDS):
            return


def sweep_once() -> int:
    """Make one pass. Return how many jobs wait, run, or are to be announced.

    Raises:
        UnavailableError: Redis is away.
    """
    for job_id, status, traceparent in state.reclaim(_LEASE_EXPIRED):
        _log.warning("job %s: its lease ran out, now %s", job_id, status, extra=about(job_id, 0, traceparent))
    outbox.announce_soon()
    if removed := state.purge():
        _log.info("%s jobs removed, their retention is over", removed)
    return announcement.announce_unclaimed()
