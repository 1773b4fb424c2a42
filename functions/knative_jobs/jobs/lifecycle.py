"""The life of a job after its submission, as people steer it.

submitted ---claim--------> in progress ---complete----> complete
    ^  ^                     |  |  |
    |  +--error, release,----+  |  +-----no attempt left, Fail--> failed
    |     lease expired         +--------cancel, heard of-------> cancelled
    |
    +--retry-- failed, cancelled        submitted ---cancel-----> cancelled
"""

from knative_jobs.jobs import announcement, outbox
from knative_jobs.runtime.errors import ConflictError, NotFoundError
from knative_jobs.runtime.job_id import JobId
from knative_jobs.runtime.job_status import Status
from knative_jobs.store import state


def record(job_id: JobId) -> bytes:
    """Return the public record of a job as JSON.

    Raises:
        NotFoundError: there is no such job.
        UnavailableError: Redis is away.
    """
    found = state.record(job_id)
    if found is None:
        raise _not_found(job_id)
    return found


def log(job_id: JobId, attempt: str, after: int = 0) -> state.Log:
    """Return what the work of a job has said: see `state.log`.

    Raises:
        NotFoundError: there is no such job.
        UnavailableError: Redis is away.
    """
    found = state.log(job_id, attempt, after)
    if found is None:
        raise _not_found(job_id)
    return found


def cancel(job_id: JobId, by: str = "") -> tuple[bool, bytes]:
    """Cancel a waiting job at once and let its event be emitted, or ask the worker of a running one.

    Args:
        job_id: the job.
        by: the name of the caller's token; empty when none was asked for.

    Returns:
        Whether the job is cancelled now, and its record.

    Raises:
        NotFoundError: there is no such job.
        ConflictError: the job has ended otherwise.
        UnavailableError: Redis is away, or takes no writes.
    """
    before, now = state.cancel(job_id, by)
    if before == "unknown":
        raise _not_found(job_id)
    # Cancelled: the answer to the first call was lost.
    if before not in (Status.SUBMITTED, Status.IN_PROGRESS, Status.CANCELLED):
        raise ConflictError(f"The job is {before}; only one that is submitted or in progress can be cancelled.")
    if now == Status.CANCELLED:
        outbox.announce_soon()
    return now == Status.CANCELLED, record(job_id)


def retry(job_id: JobId, by: str = "") -> bytes:
    """Submit a failed or cancelled job once more, and let its event be emitted. Return its record.

    Args:
        job_id: the job.
        by: the name of the caller's token; empty when none was asked for.

    Raises:
        NotFoundError: there is no such job.
        ConflictError: the job is neither failed nor cancelled.
        UnavailableError: Redis is away, or takes no writes.
    """
    retried = state.retry(job_id, by)
    if retried.before == "unknown":
        raise _not_found(job_id)
    if retried.before not in (Status.FAILED, Status.CANCELLED):
        raise ConflictError(f"The job is {retried.before}; only one that is failed or cancelled can be tried again.")
    found = record(job_id)
    if retried.due_at:
        announcement.announce_at([retried.due_at])
    else:
        announcement.announce(retried.kind, [(job_id, retried.attempts + 1, found)], retried.due - 1)
    return found


def delete(job_id: JobId) -> None:
    """Remove a job that has ended, and all that it left.

    Raises:
        NotFoundError: there is no such job.
        ConflictError: the job has not ended.
        UnavailableError: Redis is away, or takes no writes.
    """
    was = state.delete(job_id)
    if was == "unknown":
        raise _not_found(job_id)
    if was in (Status.SUBMITTED, Status.IN_PROGRESS):
        raise ConflictError(f"The job is {was}; only one that has ended can be deleted. Cancel it first.")


def _not_found(job_id: JobId) -> NotFoundError:
    return NotFoundError(f"There is no job {job_id}. It may never have been, or its retention may be over.")
