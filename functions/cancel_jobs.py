"""POST /cancel_jobs: cancel jobs that wait or run, all those that the query asks for."""

import functions_framework
from flask import Request, Response

from knative_jobs.runtime.job_status import Status
from knative_jobs.web.endpoint import endpoint
from knative_jobs.web.operations import QUERY, answer_bulk


@functions_framework.http
@endpoint("POST", "/cancel_jobs", query=QUERY)
def cancel_jobs(request: Request) -> Response:
    """Answer with how many jobs those are."""
    return answer_bulk(request, "cancel", f"{Status.SUBMITTED},{Status.IN_PROGRESS}")
