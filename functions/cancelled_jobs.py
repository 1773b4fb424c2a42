"""GET /cancelled_jobs: every job whose status is cancelled."""

import functions_framework
from flask import Request, Response

from knative_jobs.runtime.job_status import Status
from knative_jobs.web.endpoint import endpoint
from knative_jobs.web.lists import LIST_QUERY, answer_list


@functions_framework.http
@endpoint("GET", "/cancelled_jobs", query=LIST_QUERY)
def cancelled_jobs(request: Request) -> Response:
    """Answer with the list, oldest first unless the query asks for another order."""
    return answer_list(request, Status.CANCELLED)
