"""The empty function: a constant, of about the size of a job's record."""

import functions_framework
from flask import Request, Response

RECORD = b'{"end":"2","id":"00000000-0000-4000-8000-000000000000","start":"1","status":"submitted"}\n'


@functions_framework.http
def empty(request: Request) -> Response:
    """Answer with it."""
    return Response(RECORD, content_type="application/json")


empty.routes = ("/empty",)  # so it is served as the public functions are
