"""GET /jobs_status: the whole record of one job."""

import functions_framework
from flask import Request, Response

from knative_jobs import life
from knative_jobs.http import answer, endpoint


@functions_framework.http
@endpoint("GET", "/jobs_status", "/job_status")
def jobs_status(request: Request) -> Response:
    """Answer with the record."""
    return answer(life.record(request.args.get("job_id")))
