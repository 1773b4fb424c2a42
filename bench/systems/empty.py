"""The empty function: a constant, of about the size of a job's record.

It is the limit of what can be done, in two ways: `empty` is what functions-framework makes of it, on the same server
and in the mode that is fastest for that; `bare` is the function straight on the server, as our public ones are.
"""

import functions_framework
from flask import Request, Response

RECORD = b'{"end":"2","id":"00000000-0000-4000-8000-000000000000","start":"1","status":"submitted"}\n'


@functions_framework.http
def empty(request: Request) -> Response:
    """Answer with it."""
    return Response(RECORD, content_type="application/json")


empty.routes = ("/",)  # type: ignore[attr-defined]  # which makes it one that needs no thread: `knative_jobs.server.app`
