"""GET /metrics: what Prometheus reads."""

import functions_framework
from flask import Request, Response

from knative_jobs.web.endpoint import endpoint
from knative_jobs.web.metrics import exposition


@functions_framework.http
@endpoint("GET", "/metrics")
def metrics(request: Request) -> Response:
    """Answer in the format that the Accept header asks for: OpenMetrics, or Prometheus's own."""
    text, content_type = exposition(request.headers.get("Accept", ""))
    return Response(text, content_type=content_type)
