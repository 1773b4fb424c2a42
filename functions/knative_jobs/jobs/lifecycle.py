"""The life of a job after its submission, as people steer it.

submitted ---claim--------> in progress ---complete----> complete
    ^  ^                     |  |  |
    |  +--error, release,----+  |  +-----no attempt left, Fail--> failed
    |     lease expired         +--------cancel, heard of-------> cancelled
    |
    +--retry-- failed, cancelled        submitted ---cancel-----> cancelled
"""

import re

from knative_jobs.jobs import announcement, outbox
from knative_jobs.runtime.errors import ConflictError, InvalidError, NotFoundError
from knative_jobs.store import state

STATUSES = ("submitted", "in progress", "complete", "failed", "cancelled")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def parse_id(text: str | None) -> str:
    """Return the id of a job, made safe to be part of a key.

    Raises:
        InvalidError: it is no UUID.
    """
    if not text or not _UUID.fullmatch(text):
        what = f"{text[:60]!r} is not a job's id" if text else "The job's id (job_id) is missing"
        raise InvalidError(f"{what}; it is the UUID that POST /jobs answered.")
    return text.lower()


def record(job_id: str | None) -> bytes:
    """Return the public record of a job as JSON.

    Raises:
        InvalidError: `job_id` is no UUID.
        NotFoundError: there is no such job.
        UnavailableError: Redis is away.
    """
    found = state.record(parse_id(job_id))
    if found is None:
        raise _not_found(job_id)
    return found


def cancel(job_id: str | None) -> tuple[bool, bytes]:
    """Cancel a waiting job at once and let its event be emitted, or ask the worker of a running one.

    Returns:
        Whether the job is cancelled now, and its record.

    Raises:
        InvalidError: `job_id` is no UUID.
        NotFoundError: there is no such job.
        ConflictError: the job has ended otherwise.
        UnavailableError: Redis is away, or takes no writes.
    """
    before, now = state.cancel(parse_id(job_id))
    if before == "unknown":
        raise _not_found(job_id)
    if before not in ("submitted", "in progress", "cancelled"):  # cancelled: the answer to the first call was lost
        raise ConflictError(f"The job is {before}; only one that is submitted or in progress can be cancelled.")
    if now == "cancelled":
        outbox.announce_soon()
    return now == "cancelled", record(job_id)


def retry(job_id: str | None) -> bytes:
    """Submit a failed or cancelled job once more, and let its event be emitted. Return its record.

    Raises:
        InvalidError: `job_id` is no UUID.
        NotFoundError: there is no such job.
        ConflictError: the job is neither failed nor cancelled.
        UnavailableError: Redis is away, or takes no writes.
    """
    before, attempts, kind, due = state.retry(parse_id(job_id))
    if before == "unknown":
        raise _not_found(job_id)
    if before not in ("failed", "cancelled"):
        raise ConflictError(f"The job is {before}; only one that is failed or cancelled can be tried again.")
    found = record(job_id)
    announcement.announce(kind, [(parse_id(job_id), attempts + 1, found)], due - 1)
    return found


def _not_found(job_id: str | None) -> NotFoundError:
    return NotFoundError(f"There is no job {job_id}. It may never have been, or its retention may be over.")
