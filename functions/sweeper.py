"""The sweeper: a PingSource calls it every minute."""

import functions_framework
from flask import Request, Response

from knative_jobs import shutdown
from knative_jobs.http import endpoint
from knative_jobs.sweep import sweep

shutdown.watch()


@functions_framework.http
@endpoint("POST")
def sweeper(request: Request) -> Response:
    """Answer 204 after the sweep."""
    sweep()
    return Response(status=204)
