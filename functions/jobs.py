"""POST /jobs: submit one job, or a batch. GET /jobs: all jobs."""

import functions_framework
from flask import Request, Response

from knative_jobs.events import cloudevent
from knative_jobs.jobs import follow, submission
from knative_jobs.runtime.errors import InvalidError
from knative_jobs.web import links
from knative_jobs.web.answers import RETRY_AFTER_SECONDS, answer
from knative_jobs.web.endpoint import endpoint
from knative_jobs.web.lists import PAGE_QUERY, answer_page
from knative_jobs.web.preferences import APPLIED, preferences
from knative_jobs.web.query import check_query


@functions_framework.http
@endpoint("POST GET", "/jobs", query=PAGE_QUERY)
def jobs(request: Request) -> Response:
    """Answer a GET with a page of all jobs, newest first; a POST with what was submitted."""
    return _submit(request) if request.method == "POST" else answer_page(request, "/jobs")


def _submit(request: Request) -> Response:
    """Answer 202 with the job, or with an array of jobs in the order of the batch; or 200 with a job that has ended."""
    check_query(request, ())
    if cloudevent.is_one(request.headers):
        raise InvalidError(
            "This is a CloudEvent. Events go to the Service job-requests, which answers them as a Trigger needs it."
        )
    new_jobs, is_batch = submission.parse(request.get_data())
    key, traceparent = (request.headers.get(name, "") for name in ("Idempotency-Key", "traceparent"))
    submitted = submission.submit(new_jobs, key, request.remote_user or "", traceparent)
    headers = {"Idempotency-Replayed": "true"} if submitted.replayed else {}
    preferred = preferences(request)
    if not is_batch and preferred.wait_s and (record := follow.end_of(submitted.jobs[0].id, preferred.wait_s)):
        return answer(record, 200, headers | {APPLIED: f"wait={preferred.wait_s}"})
    headers["Retry-After"] = RETRY_AFTER_SECONDS
    if preferred.respond_async:
        headers[APPLIED] = "respond-async"
    if is_batch:
        return answer(f"[{','.join(job.json() for job in submitted.jobs)}]", 202, headers)
    job = submitted.jobs[0]
    return answer(job.json(), 202, headers | {"Location": links.to(request, "/jobs_status", f"job_id={job.id}")})
