"""POST /delete_job: remove a job that has ended, and all that it left."""

import functions_framework
from flask import Request, Response

from knative_jobs.jobs import lifecycle
from knative_jobs.web.endpoint import endpoint
from knative_jobs.web.query import named_job


@functions_framework.http
@endpoint("POST", "/delete_job", query=("job_id",))
def delete_job(request: Request) -> Response:
    """Answer 204 once the job is gone."""
    lifecycle.delete(named_job(request))
    return Response(status=204)
