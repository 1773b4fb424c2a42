"""Bulk operations: many jobs are retried or cancelled with one request.

Few jobs are done at once. Many are done step by step by a job of its own, of the kind `bulk-operation`, which the
function `bulk_operations` does (see `bulk_attempt`): so the operation has a record with progress, can be cancelled, and
goes on where it was when its process is killed. What it has done when it is cancelled stays done.
"""

import json
import uuid
from typing import NamedTuple

from knative_jobs.jobs import announcement, outbox, submission
from knative_jobs.runtime.job_id import JobId
from knative_jobs.runtime.job_kind import BULK
from knative_jobs.runtime.job_status import Status
from knative_jobs.store import state

STATUSES = {"retry": (Status.FAILED, Status.CANCELLED), "cancel": (Status.SUBMITTED, Status.IN_PROGRESS)}
"""What jobs there are to retry, and to cancel."""


class Begun(NamedTuple):
    """A bulk operation that has begun."""

    number: int
    """How many jobs it is about."""
    job_id: JobId | None
    """The job that does them; None: they are done."""


def begin(action: str, asked: state.Filter, by: str) -> Begun:
    """Retry, or cancel, the jobs that are asked for: at once where they are few, else with a job of its own.

    Args:
        action: one of STATUSES.
        asked: the jobs.
        by: the name of the caller's token; empty when none was asked for.

    Raises:
        UnavailableError: Redis is away, or takes no writes.
    """
    count, now = state.count(asked)
    # In this order, and no further than now, no job is met twice, though one that is retried may fail again.
    asked = asked._replace(order="oldest", before=min(asked.before or now, now, key=float))
    if count > state.AT_ONCE:
        what = json.dumps({"do": action, "by": by, "count": count, "jobs": asked._asdict()})
        job = submission.NewJob(JobId(str(uuid.uuid4())), BULK, None, None, what, {}, "")
        submission.submit([job], submitted_by=by)
        return Begun(count, job.id)
    step = state.redo(asked, action, by)
    while step and step.after:
        step = state.redo(asked, action, by, step.after)
    if count:
        announce(action)
    return Begun(count, None)


def announce(action: str) -> None:
    """Announce the jobs that a step has retried, or cancelled. Returns at once."""
    if action == "retry":
        announcement.announce_due()
    else:
        outbox.announce_soon()
