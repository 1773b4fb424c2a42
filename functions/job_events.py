"""GET /job_events: one job's record, now and whenever it changes, as Server-Sent Events."""

import functions_framework
from flask import Request, Response

from knative_jobs.web.endpoint import endpoint
from knative_jobs.web.event_stream import answer_events


@functions_framework.http
@endpoint("GET", "/job_events", query=("job_id",))
def job_events(request: Request) -> Response:
    """Answer with the stream, which ends when the job does."""
    return answer_events(request)
