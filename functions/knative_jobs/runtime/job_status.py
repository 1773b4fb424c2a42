"""The statuses of a job. `jobs/lifecycle.py` draws what leads from one to another."""

from enum import StrEnum


class Status(StrEnum):
    """The status of a job, as its record has it."""

    SUBMITTED = "submitted"
    IN_PROGRESS = "in progress"
    COMPLETE = "complete"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = (Status.COMPLETE, Status.FAILED, Status.CANCELLED)
ENDINGS = {"completed": Status.COMPLETE, "failed": Status.FAILED, "cancelled": Status.CANCELLED}
"""What completion events and JOB_EVENTS call the statuses with which a job ends."""
