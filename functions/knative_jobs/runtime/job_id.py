"""The id of a job."""

import re
from typing import NewType

from knative_jobs.runtime.errors import InvalidError

JobId = NewType("JobId", str)
"""An id that has been checked: a UUID in small letters, safe to be part of a key."""
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def parse(text: str | None) -> JobId:
    """Return the id that a request or an event names.

    Raises:
        InvalidError: it is no UUID, or there is none.
    """
    if not text or not _UUID.fullmatch(text):
        what = f"{text[:60]!r} is not a job's id" if text else "The job's id (job_id) is missing"
        raise InvalidError(f"{what}; it is the UUID that POST /jobs answered.")
    return JobId(text.lower())
