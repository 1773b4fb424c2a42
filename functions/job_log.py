"""GET /job_log: what the work of a job has printed and logged."""

import functions_framework
from flask import Request, Response

from knative_jobs.web.endpoint import endpoint
from knative_jobs.web.work_log import QUERY, answer_log


@functions_framework.http
@endpoint("GET", "/job_log", query=QUERY)
def job_log(request: Request) -> Response:
    """Answer with the log as text, or with a stream of it."""
    return answer_log(request)
