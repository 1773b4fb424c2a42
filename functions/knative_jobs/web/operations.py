"""The answers to bulk operations."""

import json

from flask import Request, Response

from knative_jobs.jobs import bulk
from knative_jobs.runtime.errors import InvalidError
from knative_jobs.store import state
from knative_jobs.web import filters, links
from knative_jobs.web.answers import RETRY_AFTER_SECONDS, answer
from knative_jobs.web.query import flag

QUERY = ("status", *(name for name in filters.QUERY if name != "order"), "dry-run")
"""The parameters of `answer_bulk`."""


def answer_bulk(request: Request, action: str, by_default: str) -> Response:
    """Answer 202 with how many jobs are retried or cancelled, and with the job that does it, where they are many.

    Args:
        request: has some of the parameters of QUERY.
        action: one of `bulk.STATUSES`.
        by_default: the statuses of the jobs where the query does not say, with commas between them.

    Raises:
        InvalidError: a parameter is not what it must be; or there is none, so that all jobs were meant.
    """
    status = request.args.get("status", "")
    if status and status not in bulk.STATUSES[action]:
        raise InvalidError(f"status is one of: {', '.join(bulk.STATUSES[action])}; not {status[:40]!r}.")
    only_count = flag(request, "dry-run", "which only counts the jobs")
    asked = filters.asked_for(request, status or by_default)
    if not filters.is_narrowed(request):
        raise InvalidError(f"Say which jobs: with one or more of {', '.join(QUERY[:-1])}.")
    if only_count:
        return answer(json.dumps({"count": state.count(asked)[0]}))
    begun = bulk.begin(action, asked, request.remote_user or "")
    if not begun.job_id:
        return answer(json.dumps({"count": begun.number}), 202)
    location = links.to(request, "/jobs_status", f"job_id={begun.job_id}")
    return answer(
        json.dumps({"count": begun.number, "job-id": begun.job_id}),
        202,
        {"Location": location, "Retry-After": RETRY_AFTER_SECONDS},
    )
