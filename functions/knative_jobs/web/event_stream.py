"""The answer that is a stream of events: https://html.spec.whatwg.org/multipage/server-sent-events.html

The data of each event is the whole public record, and its id is a digest of that. So nothing has to be kept for those
who come back: whoever has the newest record already is told of the next one only.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress

from flask import Request, Response

from knative_jobs.jobs import follow, lifecycle
from knative_jobs.runtime.errors import JobError
from knative_jobs.web.query import named_job

STREAM_SECONDS = 570
"""How long a stream lasts at most; a request in Knative may take 600 s. Clients come back with `Last-Event-ID`."""


def answer_events(request: Request) -> Response:
    """Answer with a job's records, from now to its end; 204 when the client has the last one of an ended job.

    Raises:
        InvalidError: `job_id` is no UUID.
        NotFoundError: there is no such job.
        UnavailableError: Redis is away.
    """
    job_id, known = named_job(request), request.headers.get("Last-Event-ID", "")
    record = lifecycle.record(job_id)
    if follow.ended(record) and _digest(record) == known:
        return Response(status=204)  # no EventSource comes back after that
    return answer_stream(_events(follow.records(job_id, STREAM_SECONDS), known))


def answer_stream(events: Iterable[bytes | None]) -> Response:
    """Answer with Server-Sent Events; None stands for a moment without one."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the latter is for nginx
    return Response(_stream(events), content_type="text/event-stream", headers=headers)


def _stream(events: Iterable[bytes | None]) -> Iterator[bytes]:
    yield b"retry: 1000\n\n"
    with suppress(JobError):  # a client that comes back is told
        for event in events:
            # What is between might take a silent stream for dead.
            yield b": nothing new\n\n" if event is None else event


def _events(records: Iterable[bytes | None], known: str) -> Iterator[bytes | None]:
    for record in records:
        if record is None:
            yield None
        elif (digest := _digest(record)) != known:
            yield b"id: %b\ndata: %b\n\n" % (digest.encode(), record)


def _digest(record: bytes) -> str:
    return hashlib.blake2b(record, digest_size=8).hexdigest()
