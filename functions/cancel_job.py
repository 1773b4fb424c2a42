"""POST /cancel_job: cancel a job."""

import functions_framework
from flask import Request, Response

from knative_jobs.jobs import lifecycle
from knative_jobs.web.answers import answer
from knative_jobs.web.endpoint import endpoint
from knative_jobs.web.query import named_job


@functions_framework.http
@endpoint("POST", "/cancel_job", query=("job_id",))
def cancel_job(request: Request) -> Response:
    """Answer with the record: 200 when the job is cancelled, 202 when its worker has been asked to stop."""
    cancelled, record = lifecycle.cancel(named_job(request), request.remote_user or "")
    return answer(record, 200 if cancelled else 202)
