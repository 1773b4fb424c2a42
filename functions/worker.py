"""The worker: a Trigger calls it with each event of a submitted job, and it does the work inside the request.

It answers with an empty body, for a Broker takes any other that is no CloudEvent for a failed delivery. A failure of
the work is in the job's record and no failure of the delivery: 5xx only says that it could not be recorded.
"""

import functions_framework
from flask import Request, Response

from knative_jobs.work import launcher

launcher.start()  # first, for it takes as long as the imports that follow

from knative_jobs.events import cloudevent, emit  # noqa: E402
from knative_jobs.jobs import attempt  # noqa: E402
from knative_jobs.runtime import job_id, shutdown  # noqa: E402
from knative_jobs.web.endpoint import endpoint  # noqa: E402

shutdown.watch()
launcher.ready()


@functions_framework.http
@endpoint("POST")
def worker(request: Request) -> Response:
    """Answer 204 once the job is done, or is no job to do."""
    event = cloudevent.read(request.headers, request.get_data()).attributes
    if event["type"] == emit.SUBMITTED:
        attempt.work_through(job_id.parse(event.get("subject")))
    return Response(status=204)
