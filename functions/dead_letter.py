"""The dead letter sink: a Trigger sends it the events that could not be delivered to the worker."""

import functions_framework
from flask import Request, Response

from knative_jobs.jobs import dead_letters
from knative_jobs.web.endpoint import endpoint


@functions_framework.http
@endpoint("POST")
def dead_letter(request: Request) -> Response:
    """Answer 204 once the job is due again."""
    dead_letters.take(request.headers, request.get_data())
    return Response(status=204)
