"""What can go wrong with a request, apart from its transport.

JobError
+-- InvalidError        the input is not what it must be
+-- NotFoundError       there is no such job
+-- ConflictError       the job's status does not allow it
+-- GoneError           the jobs that an idempotency key stands for have been removed
+-- KeyReusedError      an idempotency key came back with another request
+-- QueueFullError      too many jobs wait already
+-- UnavailableError    Redis is away, or takes no writes
+-- UnconfirmedError    too few replicas have what was written
"""

from typing import Any


class JobError(Exception):
    """The message says, to the one who called, what is wrong and what to do."""


class InvalidError(JobError):
    """The input is not what it must be."""


class NotFoundError(JobError):
    """There is no such job."""


class ConflictError(JobError):
    """The job's status does not allow the transition."""


class GoneError(JobError):
    """The jobs that an idempotency key stands for have ended, and have been removed after their retention."""


class KeyReusedError(JobError):
    """An idempotency key came back with another request than the one it stands for."""


class QueueFullError(JobError):
    """So many jobs wait already that no more is taken for now."""


class UnavailableError(JobError):
    """Redis is away, or takes no writes. Nothing was changed, or the change can be repeated safely."""


class UnconfirmedError(JobError):
    """Something was changed, and a failover may undo it: fewer replicas than REDIS_WAIT_REPLICAS have it so far."""

    def __init__(self, message: str, replies: list[Any]) -> None:
        super().__init__(message)
        self.replies = replies
        """What Redis replied to the change."""
