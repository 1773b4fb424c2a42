"""Job events, as CloudEvents 1.0 over HTTP. The only module that knows the cloudevents SDK.

A Broker may answer only after every subscriber has finished, so an event is emitted off the request's path, and its
answer says nothing about the job: what no event brought to a worker, the sweeper announces again.
"""

import itertools
import json
import logging
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from cloudevents.exceptions import GenericException
from cloudevents.http import CloudEvent, from_http, to_binary

from knative_jobs import tracing
from knative_jobs.errors import InvalidError
from knative_jobs.logs import about
from knative_jobs.settings import settings

if TYPE_CHECKING:
    import urllib3

SUBMITTED = "dev.knative-jobs.job.submitted"
SOURCE = "/jobs"
MAX_OPEN = 32
"""The most emissions that a process has open. It is also how many due jobs have an event out: one that joins a longer
queue needs none, for the workers that come for the jobs before it go on until nothing is due."""
ANSWER_SECONDS = 600
"""How long a Broker may take to answer: the longest that Knative lets a request last."""

_log = logging.getLogger("knative_jobs.events")
_SENDS = {"messaging.system": "knative", "messaging.operation.name": "send", "messaging.operation.type": "send"}
_slots = threading.BoundedSemaphore(MAX_OPEN)


def read(headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
    """Return the attributes of an event, in binary or in structured mode.

    Raises:
        InvalidError: it is no CloudEvent.
    """
    try:
        event = from_http(dict(headers), body, data_unmarshaller=lambda data: data)
    except (GenericException, ValueError, TypeError) as error:
        raise InvalidError(f"This is no CloudEvent: {error}") from error
    attributes: Mapping[str, str] = event.get_attributes()
    return attributes


def emit_submitted(
    jobs: Iterable[tuple[str, int, str | bytes]], queue: int = 0, traceparent: str | None = None
) -> None:
    """Announce jobs, given as (id, next attempt, public record as JSON), to the Broker. Returns at once.

    Args:
        jobs: what to announce.
        queue: how many jobs are due before these; what comes after the first MAX_OPEN of all is not announced.
        traceparent: of the request that submitted all of them. None: the records say it.
    """
    if not settings().k_sink:
        return
    for job in itertools.islice(jobs, max(0, MAX_OPEN - queue)):
        if not _slots.acquire(blocking=False):
            return
        _threads().submit(_emit, *job, traceparent)


def _emit(job_id: str, attempt: int, record: str | bytes, traceparent: str | None) -> None:
    try:
        if traceparent is None:
            traceparent = json.loads(record).get("traceparent", "")
        about_it = {"job.id": job_id, "messaging.message.id": f"{job_id}.{attempt}"}
        with tracing.span(f"send {SUBMITTED}", "PRODUCER", traceparent, _SENDS | about_it) as span:
            traceparent = span.traceparent
            _send(job_id, attempt, record, span)
    except Exception as error:
        extra = about(job_id, attempt, traceparent or "")
        _log.warning("the event of job %s was not emitted, the sweeper will: %s", job_id, error, extra=extra)
    finally:
        _slots.release()


def _send(job_id: str, attempt: int, record: str | bytes, span: tracing.Span) -> None:
    attributes = {
        "type": SUBMITTED,
        "source": SOURCE,
        "subject": job_id,
        "id": f"{job_id}.{attempt}",
        "datacontenttype": "application/json",
    }
    if span.traceparent:
        # https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/distributed-tracing.md
        attributes["traceparent"] = span.traceparent
    headers, body = to_binary(CloudEvent(attributes, record), data_marshaller=lambda data: data)
    if token_file := settings().k_sink_token_file:
        headers["Authorization"] = f"Bearer {Path(token_file).read_text()}"  # read anew: Kubernetes renews it
    status = _http().request("POST", settings().k_sink, body=body, headers=headers).status
    if status >= 300:
        span.went_wrong(str(status))
        extra = about(job_id, attempt, span.traceparent)
        _log.warning("the broker answered %s to the event of job %s", status, job_id, extra=extra)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MAX_OPEN, "emit")


@cache
def _http() -> "urllib3.PoolManager":
    import urllib3  # here, so that no cold start waits for it

    timeout = urllib3.Timeout(connect=2, read=ANSWER_SECONDS)
    return urllib3.PoolManager(maxsize=MAX_OPEN, timeout=timeout, retries=False)
