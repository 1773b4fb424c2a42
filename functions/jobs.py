"""POST /jobs: submit one job, or a batch. GET /jobs: all jobs."""

import functions_framework
from flask import Request, Response

from knative_jobs.web.endpoint import endpoint
from knative_jobs.web.lists import PAGE_QUERY, answer_page
from knative_jobs.web.submissions import answer_submission


@functions_framework.http
@endpoint("POST GET", "/jobs", query=PAGE_QUERY)
def jobs(request: Request) -> Response:
    """Answer a POST with what was submitted, and a GET with a page of all jobs, newest first."""
    return answer_submission(request) if request.method == "POST" else answer_page(request, "/jobs")
