"""The answers that are the log of a job: what its work has printed and logged."""

from collections.abc import Iterator

from flask import Request, Response

from knative_jobs.jobs import follow, lifecycle
from knative_jobs.runtime.errors import InvalidError
from knative_jobs.runtime.job_id import JobId
from knative_jobs.runtime.job_status import ENDED
from knative_jobs.store.state import Log
from knative_jobs.web.event_stream import STREAM_SECONDS, answer_stream
from knative_jobs.web.query import flag, named_job, whole_number

QUERY = ("job_id", "attempt", "follow")


def answer_log(request: Request) -> Response:
    """Answer with the log as text; with `follow=1` as Server-Sent Events, until the job has ended.

    What each attempt has said comes after a line with its number, unless the query has `attempt`. The log begins with a
    whole line. The id of an event is how many bytes there were up to its end; a client that comes back with it in
    Last-Event-ID gets what comes after that.

    Raises:
        InvalidError: a parameter is not what it must be.
        NotFoundError: there is no such job.
        UnavailableError: Redis is away.
    """
    job_id, attempt = named_job(request), request.args.get("attempt", "")
    if attempt and not whole_number(attempt):
        raise InvalidError(f"attempt is the number of an attempt, 1 or more; not {attempt[:40]!r}.")
    if not flag(request, "follow", "for a stream"):
        log = lifecycle.log(job_id, attempt)
        return Response("".join(_texts(log, attempt)), content_type="text/plain; charset=utf-8")
    last = request.headers.get("Last-Event-ID", "")
    after = whole_number(last) or 0
    log = lifecycle.log(job_id, attempt, after)
    if last and log.status in ENDED and not log.parts:
        return Response(status=204)  # no EventSource comes back after that
    return answer_stream(_events(job_id, attempt, after))


def _events(job_id: JobId, attempt: str, after: int) -> Iterator[bytes | None]:
    def read() -> Log:
        return lifecycle.log(job_id, attempt, after)

    for log in follow.readings(job_id, STREAM_SECONDS, read):
        if log is None:
            yield None
            continue
        if log.parts:
            lines = "".join(_texts(log, attempt)).removesuffix("\n").split("\n")
            data = "".join(f"data: {line}\n" for line in lines)
            yield f"id: {log.end}\n{data}\n".encode()
            after = log.end
        if log.status in ENDED:
            yield f"event: end\nid: {log.end}\ndata: {log.status}\n\n".encode()
            return


def _texts(log: Log, attempt: str) -> Iterator[str]:
    """Yield the parts of a log, and a line before each attempt, unless one alone is asked for."""
    before = log.parts[0][0] if log.how == "continued" else 0
    for place, (number, text) in enumerate(log.parts):
        if place == 0 and log.how == "cut":
            text = text.partition(b"\n")[2]
        if number != before and not attempt:
            yield f"--- attempt {number} ---\n"
        before = number
        yield text.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
