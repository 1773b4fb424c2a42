"""The worker of bulk operations: a Trigger calls it with the event of each that is a job of its own."""

import functions_framework
from flask import Request, Response

from knative_jobs.events import cloudevent
from knative_jobs.jobs import bulk_attempt
from knative_jobs.runtime import job_id, shutdown
from knative_jobs.web.endpoint import endpoint

shutdown.watch()


@functions_framework.http
@endpoint("POST")
def bulk_operations(request: Request) -> Response:
    """Answer 204 once the operation is done, or is none to do."""
    event = cloudevent.read(request.headers, request.get_data()).attributes
    bulk_attempt.work_through(job_id.parse(event.get("subject")))
    return Response(status=204)
