"""The sweeper: a PingSource calls it every minute."""

import functions_framework
from flask import Request, Response

from knative_jobs.jobs.sweep import sweep
from knative_jobs.runtime import shutdown
from knative_jobs.web.endpoint import endpoint

shutdown.watch()


@functions_framework.http
@endpoint("POST")
def sweeper(request: Request) -> Response:
    """Answer 204 after the sweep."""
    sweep()
    return Response(status=204)
