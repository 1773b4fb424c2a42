"""GET /dashboard: a page that shows the jobs and steers them, and what it shows."""

import functions_framework
from flask import Request, Response

from knative_jobs.web import overview, pages
from knative_jobs.web.answers import answer
from knative_jobs.web.endpoint import endpoint
from knative_jobs.web.filters import chosen_kind
from knative_jobs.web.lists import PAGE_QUERY, answer_page

QUERY = {"/dashboard/overview": ("kind",), "/dashboard/jobs": PAGE_QUERY}


@functions_framework.http
@endpoint("GET", *QUERY, query=QUERY, pages=pages.DASHBOARD)
def dashboard(request: Request) -> Response:
    """Answer with the page, a file of it, or what it shows."""
    match request.path.rstrip("/"):
        case "/dashboard/overview":
            return answer(overview.as_json(chosen_kind(request)))
        case "/dashboard/jobs":
            return answer_page(request, "/dashboard/jobs")
        case path:
            return pages.answer_file(request, pages.DASHBOARD[path or "/"])
