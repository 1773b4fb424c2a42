"""POST /retry_job: submit a failed or cancelled job once more."""

import functions_framework
from flask import Request, Response

from knative_jobs.jobs import lifecycle
from knative_jobs.web import links
from knative_jobs.web.answers import RETRY_AFTER_SECONDS, answer
from knative_jobs.web.endpoint import endpoint
from knative_jobs.web.query import named_job


@functions_framework.http
@endpoint("POST", "/retry_job", query=("job_id",))
def retry_job(request: Request) -> Response:
    """Answer 202 with the record."""
    job_id = named_job(request)
    record = lifecycle.retry(job_id, request.remote_user or "")
    location = links.to(request, "/jobs_status", f"job_id={job_id}")
    return answer(record, 202, {"Location": location, "Retry-After": RETRY_AFTER_SECONDS})
