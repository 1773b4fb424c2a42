"""Every public function, by its path: what the Service `jobs` is with knative/components/one-endpoint."""

import functions_framework
from flask import Request, Response

from knative_jobs.server import by_path

HANDLERS = by_path.load(by_path.public())


@functions_framework.http
def api(request: Request) -> Response:
    """Answer as the function does that has the path."""
    return by_path.answer(request, HANDLERS)


api.routes = tuple(HANDLERS)
