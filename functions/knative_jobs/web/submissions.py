"""The answers to submissions of jobs."""

from flask import Request, Response

from knative_jobs.events import cloudevent
from knative_jobs.jobs import follow, submission
from knative_jobs.runtime.errors import InvalidError
from knative_jobs.web import links
from knative_jobs.web.answers import RETRY_AFTER_SECONDS, answer
from knative_jobs.web.preferences import APPLIED, preferences


def answer_submission(request: Request) -> Response:
    """Answer 202 with the job, or with an array of jobs in the order of the batch; or 200 with a job that has ended.

    Raises:
        InvalidError: the body is no job and no batch of them.
    """
    if cloudevent.is_one(request.headers):  # type: ignore[arg-type]  # a mapping in all but name
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
