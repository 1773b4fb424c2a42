"""GET /dashboard: a page that shows the jobs and steers them, and what it shows."""

import functions_framework
from flask import Request, Response

from knative_jobs import pages
from knative_jobs.http import endpoint
from knative_jobs.lists import answer_newest


@functions_framework.http
@endpoint("GET", "/dashboard/jobs", pages=pages.DASHBOARD)
def dashboard(request: Request) -> Response:
    """Answer with the page, a file of it, or jobs, newest first."""
    path = request.path.rstrip("/") or "/"
    if path == "/dashboard/jobs":
        return answer_newest(request)
    return pages.answer_file(request, pages.DASHBOARD[path])
