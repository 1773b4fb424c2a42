"""GET /jobs_status: the whole record of one job."""

import functions_framework
from flask import Request, Response

from knative_jobs.jobs import follow
from knative_jobs.web.answers import answer
from knative_jobs.web.endpoint import endpoint
from knative_jobs.web.query import named_job, wait_seconds


@functions_framework.http
@endpoint("GET", "/jobs_status", "/job_status", query=("job_id", "wait"))
def jobs_status(request: Request) -> Response:
    """Answer with the record: at once, or with `wait` when the job has ended or so many seconds are over."""
    return answer(follow.until_ended(named_job(request), wait_seconds(request)))
