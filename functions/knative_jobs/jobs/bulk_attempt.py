"""One attempt of a bulk operation that is a job of its own: step after step, each with the lease renewed."""

import json
import logging
import time

from knative_jobs.jobs import announcement, attempt, bulk, outbox
from knative_jobs.runtime.errors import UnavailableError
from knative_jobs.runtime.job_kind import BULK
from knative_jobs.runtime.logs import about
from knative_jobs.runtime.settings import settings
from knative_jobs.runtime.shutdown import stopping
from knative_jobs.store import state

_REQUEST_SECONDS = 300
"""So long one request of the Broker goes on. An operation that takes longer is continued by the next one."""
_PAUSES = 19
"""The pause after each step is so many times as long: an operation takes a twentieth of Redis's time. It is
no longer than a third of the lease, which each step renews."""
_log = logging.getLogger("knative_jobs.bulk")


def work_through(job_id: str) -> None:
    """Do the named operation, then whatever other is due, for up to _REQUEST_SECONDS.

    Raises:
        UnavailableError: Redis is away. The operation goes on once its lease has run out.
    """
    if stopping.is_set():
        raise UnavailableError("This function is being stopped; another will do the operation.")
    ends_at = time.monotonic() + _REQUEST_SECONDS
    held = state.claim(job_id, attempt.worker_ip(), BULK)
    while isinstance(held, state.Claim):
        outcome, result = _run(held, ends_at)
        more = not stopping.is_set() and time.monotonic() < ends_at
        _, held = state.finish(held, outcome, result, next_for=attempt.worker_ip() if more else "")
        outbox.announce_soon()
        if not more:
            announcement.hand_over(BULK)


def _run(held: state.Claim, ends_at: float) -> tuple[str, str]:
    """Do an operation from where it was. Return its outcome, in the words of `state.finish`, and its result as JSON."""
    what = json.loads(held.input)
    asked, operation = state.Filter(**what["jobs"]), state.Operation(held, what["count"])
    while True:
        began = time.monotonic()
        step = state.redo(asked, what["do"], what["by"], operation=operation)
        if step is None or step.cancelled:
            return "cancelled", ""
        bulk.announce(what["do"])
        if not step.after:
            _log.info("job %s: %s jobs done", held.id, step.done, extra=about(held.id, held.attempt))
            return "complete", json.dumps({"count": step.done})
        pause_s = min(_PAUSES * (time.monotonic() - began), settings().job_lease_seconds / 3)
        if stopping.wait(pause_s) or time.monotonic() >= ends_at:
            return "continued", ""
