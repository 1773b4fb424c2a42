"""GET /incomplete_jobs: every job whose status is not complete."""

import functions_framework
from flask import Request, Response

from knative_jobs.web.endpoint import endpoint
from knative_jobs.web.lists import INCOMPLETE, LIST_QUERY, answer_list


@functions_framework.http
@endpoint("GET", "/incomplete_jobs", query=LIST_QUERY)
def incomplete_jobs(request: Request) -> Response:
    """Answer with the list, oldest first unless the query asks for another order."""
    return answer_list(request, INCOMPLETE)
