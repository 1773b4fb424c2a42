"""Jobs that an event asks for."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping

from knative_jobs.events import cloudevent
from knative_jobs.jobs import submission
from knative_jobs.runtime.errors import GoneError

MAX_CALLER = 255
"""The characters of an event's source that the record of a job has, in `submitted-by`."""

_log = logging.getLogger("knative_jobs.requests")


def take(headers: Mapping[str, str], body: bytes) -> None:
    """Submit the jobs in an event, once for each event: its source and id are the idempotency key.

    Those two tell one event from another: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md#id.

    Raises:
        InvalidError: it is no CloudEvent, or its data is no job.
        KeyReusedError: another event came with this source and id.
        QueueFullError: too many jobs are due already.
        UnavailableError: Redis is away, or takes no writes.
    """
    event = cloudevent.read(headers, body)
    source, event_id = event.attributes["source"], event.attributes["id"]
    jobs, _ = submission.parse(event.data, "The data of the event")
    key = hashlib.sha256(json.dumps(["event", source, event_id]).encode()).hexdigest()
    traceparent = event.attributes.get("traceparent") or headers.get("traceparent", "")
    try:
        caller = re.sub(r"[\x00-\x1f\x7f]", "", f"event:{source}")[:MAX_CALLER]
        submission.submit(jobs, key, caller, traceparent)
    except GoneError:
        _log.info("event %r of %r came again, after the retention of its jobs", event_id[:100], source[:100])
