"""GET /openapi.json: the description of this API. GET /docs: a page to read and try it."""

from importlib.resources import files

import functions_framework
from flask import Request, Response

from knative_jobs.web import pages
from knative_jobs.web.endpoint import answer, endpoint

DOCUMENT = files("knative_jobs.web").joinpath("openapi.json").read_bytes().rstrip()


@functions_framework.http
@endpoint("GET", "/openapi.json", pages=pages.DESCRIPTION)
def openapi(request: Request) -> Response:
    """Answer with the OpenAPI 3.1 document of every public route, or with the page."""
    if place := pages.DESCRIPTION.get(request.path.rstrip("/")):
        return pages.answer_file(request, place)
    return answer(DOCUMENT)
