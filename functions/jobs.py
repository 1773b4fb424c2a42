"""POST /jobs: submit one job, or a batch."""

import functions_framework
from flask import Request, Response

from knative_jobs.jobs import submission
from knative_jobs.web.endpoint import RETRY_AFTER_SECONDS, answer, endpoint


@functions_framework.http
@endpoint("POST", "/jobs")
def jobs(request: Request) -> Response:
    """Answer 202 with the job, or with an array of jobs in the order of the batch."""
    new_jobs, is_batch = submission.parse(request.get_data())
    key, traceparent = (request.headers.get(name, "") for name in ("Idempotency-Key", "traceparent"))
    submitted = submission.submit(new_jobs, key, request.remote_user or "", traceparent)
    headers = {"Retry-After": RETRY_AFTER_SECONDS}
    if submitted.replayed:
        headers["Idempotency-Replayed"] = "true"
    if is_batch:
        return answer(f"[{','.join(job.json() for job in submitted.jobs)}]", 202, headers)
    job = submitted.jobs[0]
    return answer(job.json(), 202, headers | {"Location": f"/jobs_status?job_id={job.id}"})
