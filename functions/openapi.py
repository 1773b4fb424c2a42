"""GET /openapi.json: the description of this API. GET /docs: a page to read and try it."""

import functions_framework
from flask import Request, Response

from knative_jobs.web import description, pages
from knative_jobs.web.answers import answer
from knative_jobs.web.endpoint import endpoint


@functions_framework.http
@endpoint("GET", "/openapi.json", pages=pages.DESCRIPTION)
def openapi(request: Request) -> Response:
    """Answer with the OpenAPI 3.1 document of every public route, or with the page."""
    if place := pages.DESCRIPTION.get(request.path.rstrip("/")):
        return pages.answer_file(request, place)
    return answer(description.document(request))
