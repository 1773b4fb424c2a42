"""What the query of a request asks for: `job_id` and `wait`, which several endpoints take."""

import re

from flask import Request

from knative_jobs.jobs.follow import MAX_WAIT_SECONDS
from knative_jobs.runtime import job_id
from knative_jobs.runtime.errors import InvalidError

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")


def named_job(request: Request) -> job_id.JobId:
    """Return the id in `job_id`.

    Raises:
        InvalidError: it is no UUID, or there is none.
    """
    return job_id.parse(request.args.get("job_id"))


def wait_seconds(request: Request) -> float:
    """Return how long the client is willing to wait for the end of the job; 0: not at all.

    Raises:
        InvalidError: `wait` is no number from 0 to MAX_WAIT_SECONDS.
    """
    wait = request.args.get("wait", "0")
    if not _NUMBER.fullmatch(wait) or not 0 <= float(wait) <= MAX_WAIT_SECONDS:
        raise InvalidError(f"wait is a number of seconds from 0 to {MAX_WAIT_SECONDS}, not {wait[:40]!r}.")
    return float(wait)
