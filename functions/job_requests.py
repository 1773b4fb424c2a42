"""The sink of job requests: sources and Triggers send it events whose data is a job, or an array of them.

It answers with an empty body, for a Broker takes any other that is no CloudEvent for a failed delivery.
"""

import functions_framework
from flask import Request, Response

from knative_jobs.jobs import requests
from knative_jobs.web.endpoint import endpoint


@functions_framework.http
@endpoint("POST")
def job_requests(request: Request) -> Response:
    """Answer 204 once the jobs of the event are saved, also where they were before."""
    requests.take(request.headers, request.get_data())
    return Response(status=204)
