"""Job events, and their emission to a Broker.

A Broker may answer only after every subscriber has finished, so events are emitted in the background. For the event of
a submitted job, the response says nothing about the job. For a completion event, it says whether the Broker has it.
"""

import json
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from knative_jobs.events import cloudevent, http_client
from knative_jobs.runtime import greenlets, tracing
from knative_jobs.runtime.job_status import ENDINGS
from knative_jobs.runtime.logs import about
from knative_jobs.runtime.settings import settings

SUBMITTED = "dev.knative-jobs.job.submitted"
ENDED: dict[str, str] = {status: f"dev.knative-jobs.job.{word}" for word, status in ENDINGS.items()}
"""The type of the event of a job that has ended, by its status."""
MAX_OPEN = 32
"""The most events that one process has in flight."""
ANSWER_SECONDS = 600
"""How long a Broker may take to answer: the longest that Knative lets a request last."""
HANDED_OVER_SECONDS = 30
"""A Broker that took the whole event and has not answered for so long has it, and waits for its subscribers."""
NOT_TAKEN = {*range(300, 400), 401, 403, 404, 408, 409, 425, 429, 502, 503, 504}
"""Answers of a Broker that does not have the event, or of what stands before it. 500 is not one: the default Broker
says so when a subscriber failed in spite of all its retries, and has dead letters for that."""

_log = logging.getLogger("knative_jobs.events")
_SENDS = {"messaging.system": "knative", "messaging.operation.name": "send", "messaging.operation.type": "send"}


class Submitted(NamedTuple):
    """A job that is due, and whose event is to be sent; `record` is its public record as JSON."""

    id: str
    kind: str
    attempt: int
    """The number of its next attempt."""
    record: bytes


class SubmittedEvents:
    """Sends the events of submitted jobs from this process to the Broker, in the background.

    At most MAX_OPEN are in flight. The newest MAX_OPEN others wait until one of those is answered: all that are in
    flight may be for jobs that somebody has claimed, so a new job still needs its own. When yet another is emitted, the
    oldest that waits is dropped. Nothing is lost by that: the job is due in Redis, where a worker that is awake or the
    sweeper finds it. The log tells of these events, and `take_uncounted` has them by kind, for a metric.
    """

    def __init__(self, after_dropping: Callable[[], None]) -> None:
        """Begin with none.

        Args:
            after_dropping: called when an event was dropped. It must not block.
        """
        self._after_dropping = after_dropping
        self._dropped = 0
        self._uncounted: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._in_flight = 0
        self._waiting: deque[tuple[Submitted, str | None, Callable[[], None] | None]] = deque()

    def emit(
        self,
        jobs: Iterable[Submitted],
        traceparent: str | None = None,
        answered: Callable[[], None] | None = None,
    ) -> None:
        """Send an event for each job. Returns at once.

        Args:
            jobs: what is due.
            traceparent: of the request that submitted all of them. None: each record says its own.
            answered: called after each event that was answered, or failed. It must not block.
        """
        if not settings().k_sink:
            return
        for job in jobs:
            with self._lock:
                drops = len(self._waiting) == MAX_OPEN
                if drops:
                    self._drop()
                self._waiting.append((job, traceparent, answered))
                has_room = self._in_flight < MAX_OPEN
                self._in_flight += has_room
            if has_room:
                greenlets.start(self._send_waiting)
            if drops:
                self._after_dropping()

    def take_uncounted(self) -> dict[str, int]:
        """Return how many events of each kind were dropped since this was called last."""
        with self._lock:
            dropped, self._uncounted = self._uncounted, Counter()
        return dropped

    def _drop(self) -> None:
        job, traceparent, _ = self._waiting.popleft()
        self._dropped += 1
        self._uncounted[job.kind] += 1
        if self._dropped.bit_count() == 1:  # 1, 2, 4, 8, ...: a Broker that is away for long does not fill the log
            why = f"{MAX_OPEN} are in flight and {MAX_OPEN} newer ones wait; {self._dropped} dropped so far"
            _log.warning("an event was dropped: %s", why, extra=about(job.id, job.attempt, traceparent or "", job.kind))

    def _send_waiting(self) -> None:
        """Send what waits, one after the other, until nothing does."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._in_flight -= 1
                    return
                job, traceparent, answered = self._waiting.popleft()
            _send_submitted(job, traceparent)
            if answered:
                answered()


def emit_ended(job_id: str, kind: str, status: str, finished_at: str, record: bytes) -> Future[bool]:
    """Announce how a job ended, to the Broker. Each repetition of the event has the same id.

    Returns:
        Whether the Broker has the event, as far as can be told. It may have it all the same when it could not be told.
    """
    return greenlets.start(_emit_ended, job_id, kind, status, finished_at, record)


def _send_submitted(job: Submitted, traceparent: str | None) -> None:
    """Send one event. Its id is new each time: a JobSink starts nothing for an id that it has a Kubernetes Job of.

    So only what the Broker itself delivers twice has the same id.
    """
    event_id = f"{job.id}.{job.attempt}.{time.time_ns() // 1_000_000}"
    try:
        _send(SUBMITTED, job.id, job.kind, event_id, job.record, ANSWER_SECONDS, traceparent)
    except Exception as error:
        extra = about(job.id, job.attempt, traceparent or "", job.kind)
        _log.warning("the event of job %s was not emitted, the sweeper will: %s", job.id, error, extra=extra)


def _emit_ended(job_id: str, kind: str, status: str, finished_at: str, record: bytes) -> bool:
    try:
        answer = _send(ENDED[status], job_id, kind, f"{job_id}.{status}.{finished_at}", record, HANDED_OVER_SECONDS)
    except http_client.NoAnswerError:
        return True
    except Exception as error:
        _log.warning(
            "that job %s is %s was not emitted, it will be again: %s",
            job_id,
            status,
            error,
            extra=about(job_id, kind=kind),
        )
        return False
    return answer not in NOT_TAKEN


def _send(
    event_type: str,
    job_id: str,
    kind: str,
    event_id: str,
    record: bytes,
    answer_s: float,
    traceparent: str | None = None,
) -> int:
    """Send an event whose data is the record. Return the status of the answer, which may take `answer_s` seconds."""
    if traceparent is None:
        traceparent = json.loads(record).get("traceparent", "")
    about_it = {"job.id": job_id, "job.kind": kind, "messaging.message.id": event_id}
    with tracing.span(f"send {event_type}", "PRODUCER", traceparent, _SENDS | about_it) as span:
        attributes = {
            "specversion": "1.0",
            "type": event_type,
            "source": settings().event_source,
            "subject": job_id,
            "id": event_id,
            "jobkind": kind,
            "time": datetime.now(UTC).isoformat(),
            "datacontenttype": "application/json",
        }
        if settings().event_dataschema:
            attributes["dataschema"] = settings().event_dataschema
        if span.traceparent:
            # https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/distributed-tracing.md
            attributes["traceparent"] = span.traceparent
        headers = cloudevent.Event(attributes, record).headers()
        if token_file := settings().k_sink_token_file:
            headers["Authorization"] = f"Bearer {Path(token_file).read_text().strip()}"  # anew: Kubernetes renews it
        status = greenlets.wait_for(http_client.post(settings().k_sink, headers, record, answer_s)).status
        if status >= 300:
            span.went_wrong(str(status))
            extra = about(job_id, traceparent=span.traceparent, kind=kind)
            _log.warning("the broker answered %s to %s of job %s", status, event_type, job_id, extra=extra)
    return status
