"""GET /openapi.json: the description of this API."""

from importlib.resources import files

import functions_framework
from flask import Request, Response

from knative_jobs.http import answer, endpoint

DOCUMENT = files("knative_jobs").joinpath("openapi.json").read_bytes().rstrip()


@functions_framework.http
@endpoint("GET", "/openapi.json")
def openapi(request: Request) -> Response:
    """Answer with the OpenAPI 3.1 document of every public route."""
    return answer(DOCUMENT)
