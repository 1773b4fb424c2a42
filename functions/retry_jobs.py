"""POST /retry_jobs: submit failed or cancelled jobs once more, all those that the query asks for."""

import functions_framework
from flask import Request, Response

from knative_jobs.runtime.job_status import Status
from knative_jobs.web.endpoint import endpoint
from knative_jobs.web.operations import QUERY, answer_bulk


@functions_framework.http
@endpoint("POST", "/retry_jobs", query=QUERY)
def retry_jobs(request: Request) -> Response:
    """Answer with how many jobs those are. Cancelled ones are retried where the query has that status."""
    return answer_bulk(request, "retry", Status.FAILED)
