"""Job events, and their emission to a Broker.

A Broker may answer only after every subscriber has finished, so an event is emitted off the request's path, and its
answer says nothing about the job: what no event brought to a worker, the sweeper announces again. Of the event of a job
that has ended it says whether the Broker has it.
"""

import json
import logging
import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path

from knative_jobs.events import cloudevent, http_client
from knative_jobs.runtime import greenlets, tracing
from knative_jobs.runtime.logs import about
from knative_jobs.runtime.settings import ENDINGS, settings

SUBMITTED = "dev.knative-jobs.job.submitted"
ENDED = {status: f"dev.knative-jobs.job.{word}" for word, status in ENDINGS.items()}
"""The type of the event of a job that has ended, by its status."""
SOURCE = "/jobs"
MAX_OPEN = 32
"""The most emissions that a process has open, and the most that wait for one of them to end."""
ANSWER_SECONDS = 600
"""How long a Broker may take to answer: the longest that Knative lets a request last."""
HANDED_OVER_SECONDS = 30
"""A Broker that took the whole event and has not answered for so long has it, and waits for its subscribers."""
NOT_TAKEN = {*range(300, 400), 401, 403, 404, 408, 409, 425, 429, 502, 503, 504}
"""Answers of a Broker that does not have the event, or of what stands before it. 500 is not one: the default Broker
says so when a subscriber failed in spite of all its retries, and has dead letters for that."""

_log = logging.getLogger("knative_jobs.events")
_SENDS = {"messaging.system": "knative", "messaging.operation.name": "send", "messaging.operation.type": "send"}
_slots = threading.BoundedSemaphore(MAX_OPEN)
_waiting: deque[tuple[str, int, bytes, str | None]] = deque(maxlen=MAX_OPEN)
"""The newest that are to be emitted. The events that are open may all be of jobs that somebody has taken, and then no
worker comes: without one of its own, a job would have to wait for the sweeper."""


def needs_event(queue: int) -> bool:
    """Return whether a job needs an event when so many are due before it.

    In a long queue few do, for the workers that come for the jobs before it go on until nothing is due. What doubles
    the queue has one, and so another worker joins: of jobs that take a millisecond, those that are there have taken
    the first ones before another comes for them.
    """
    return queue < MAX_OPEN or queue.bit_count() == 1


def emit_submitted(jobs: Iterable[tuple[str, int, bytes]], traceparent: str | None = None) -> None:
    """Announce jobs, given as (id, next attempt, public record as JSON), to the Broker. Returns at once.

    Args:
        jobs: what to announce.
        traceparent: of the request that submitted all of them. None: the records say it.
    """
    if not settings().k_sink:
        return
    for job in jobs:
        _waiting.append((*job, traceparent))
        if _slots.acquire(blocking=False):
            greenlets.start(_emit_waiting)


def emit_ended(job_id: str, status: str, finished_at: str, record: bytes) -> Future[bool]:
    """Announce how a job ended, to the Broker. Each repetition of the event has the same id.

    Returns:
        Whether the Broker has the event, as far as can be told. It may have it all the same when it could not be told.
    """
    return greenlets.start(_emit_ended, job_id, status, finished_at, record)


def _emit_waiting() -> None:
    """Emit what waits, as the holder of a slot, which is free afterwards."""
    while True:
        try:
            job = _waiting.popleft()
        except IndexError:
            _slots.release()
            # What came before the slot was free again has found none.
            if not (_waiting and _slots.acquire(blocking=False)):
                return
        else:
            _emit(*job)


def _emit(job_id: str, attempt: int, record: bytes, traceparent: str | None) -> None:
    try:
        _send(SUBMITTED, job_id, f"{job_id}.{attempt}", record, ANSWER_SECONDS, traceparent)
    except Exception as error:
        extra = about(job_id, attempt, traceparent or "")
        _log.warning("the event of job %s was not emitted, the sweeper will: %s", job_id, error, extra=extra)


def _emit_ended(job_id: str, status: str, finished_at: str, record: bytes) -> bool:
    try:
        answer = _send(ENDED[status], job_id, f"{job_id}.{status}.{finished_at}", record, HANDED_OVER_SECONDS)
    except http_client.NoAnswerError:
        return True
    except Exception as error:
        _log.warning(
            "that job %s is %s was not emitted, it will be again: %s", job_id, status, error, extra=about(job_id)
        )
        return False
    return answer not in NOT_TAKEN


def _send(kind: str, job_id: str, event_id: str, record: bytes, answer_s: float, traceparent: str | None = None) -> int:
    """Send an event whose data is the record. Return the status of the answer, which may take `answer_s` seconds."""
    if traceparent is None:
        traceparent = json.loads(record).get("traceparent", "")
    about_it = {"job.id": job_id, "messaging.message.id": event_id}
    with tracing.span(f"send {kind}", "PRODUCER", traceparent, _SENDS | about_it) as span:
        attributes = {
            "specversion": "1.0",
            "type": kind,
            "source": SOURCE,
            "subject": job_id,
            "id": event_id,
            "time": datetime.now(UTC).isoformat(),
            "datacontenttype": "application/json",
        }
        if span.traceparent:
            # https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/distributed-tracing.md
            attributes["traceparent"] = span.traceparent
        headers = cloudevent.Event(attributes, record).headers()
        if token_file := settings().k_sink_token_file:
            headers["Authorization"] = f"Bearer {Path(token_file).read_text().strip()}"  # anew: Kubernetes renews it
        status = greenlets.wait_for(http_client.post(settings().k_sink, headers, record, answer_s)).status
        if status >= 300:
            span.went_wrong(str(status))
            extra = about(job_id, traceparent=span.traceparent)
            _log.warning("the broker answered %s to %s of job %s", status, kind, job_id, extra=extra)
    return status
