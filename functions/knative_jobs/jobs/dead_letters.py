"""What a Broker gave up on."""

import logging
from collections.abc import Mapping

from knative_jobs.events import cloudevent, emit
from knative_jobs.runtime import job_id, tracing
from knative_jobs.runtime.logs import about
from knative_jobs.runtime.settings import settings
from knative_jobs.store import state

_log = logging.getLogger("knative_jobs.dead_letter")


def take(headers: Mapping[str, str], body: bytes) -> None:
    """Log why an event could not be delivered. Let the job of a submitted one be due again after JOB_BACKOFF_SECONDS.

    A Broker may bring the same dead letter several times; each only puts the job off. A job that no longer waits is
    left as it is.

    Raises:
        InvalidError: it is no CloudEvent, or is of a submitted job and names none.
        UnavailableError: Redis is away, or takes no writes.
    """
    event = cloudevent.read(headers, body).attributes
    # https://knative.dev/docs/eventing/event-delivery/#configuring-channel-event-delivery
    why = {name: event.get(name) for name in ("knativeerrordest", "knativeerrorcode", "knativeerrordata")}
    traceparent = tracing.parse(event.get("traceparent", ""))
    if event["type"] != emit.SUBMITTED:
        told = event["id"], event["source"], event["type"]
        _log.warning("event %r of %r, a %r, was not delivered: %r", *told, why, extra=about(traceparent=traceparent))
        return
    named = job_id.parse(event.get("subject"))
    went = "waits" if state.postpone(named, settings().job_backoff_seconds) else "went on"
    extra = about(named, 0, traceparent, event.get("jobkind", ""))
    _log.warning("the event of job %s was not delivered: %r; the job %s", named, why, went, extra=extra)
