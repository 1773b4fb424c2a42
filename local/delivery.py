"""Delivering one event to one address, as Knative's Broker does it.

What counts as delivered, what is tried again, how long that waits and what a dead letter says is written in
https://github.com/knative/eventing/blob/main/docs/spec/data-plane.md and pkg/kncloudevents beside it.
"""

import asyncio
import base64
from typing import NamedTuple

from knative_jobs.events import cloudevent
from knative_jobs.events.cloudevent import Event
from knative_jobs.events.http_client import NoAnswerError
from knative_jobs.runtime.errors import InvalidError
from local.activator import Post
from local.manifests import Delivery

RETRIED = {404, 408, 409, 429}
MAX_ERROR_DATA = 1024
NO_EVENT = b"The response MUST be either empty or a valid CloudEvent"


class Outcome(NamedTuple):
    """What came of one attempt."""

    status: int
    body: bytes = b""
    delivered: bool = False
    again: bool = False
    reply: Event | None = None


async def deliver(post: Post, address: str, event: Event, delivery: Delivery, slots: asyncio.Semaphore) -> Outcome:
    """Send the event until it is delivered, refused for good, or `delivery.retry` retries are used up.

    Args:
        post: the HTTP client.
        address: where to.
        event: what.
        delivery: how often and how far apart.
        slots: bounds how many requests are open at once; a wait between two attempts takes no slot.
    """
    for retry in range(delivery.retry + 1):
        if retry:
            await asyncio.sleep(backoff_s(delivery, retry - 1))
        async with slots:
            outcome = await _send(post, address, event)
        if not outcome.again:
            break
    return outcome


def dead_letter(event: Event, address: str, outcome: Outcome) -> Event:
    """Return the event as its dead letter, which says where the delivery failed and how."""
    data = base64.b64encode(outcome.body).decode()[:MAX_ERROR_DATA]
    error = {"dest": address, "code": str(outcome.status), "data": data}
    return Event({**event.attributes, **{f"knativeerror{name}": value for name, value in error.items()}}, event.data)


def backoff_s(delivery: Delivery, retry: int) -> float:
    """Return the seconds to wait before a retry, the first of which is 0."""
    return delivery.backoff_delay_s * (retry if delivery.backoff_policy == "linear" else 2**retry)


async def _send(post: Post, address: str, event: Event) -> Outcome:
    try:
        status, headers, body = await post(address, event.headers(), event.data)
    except (OSError, NoAnswerError, ValueError) as error:
        return Outcome(500, f"dispatch error: {error}".encode(), again=True)
    if status >= 300:
        return Outcome(status, body, again=status >= 500 or status in RETRIED)
    try:
        return Outcome(status, delivered=True, reply=cloudevent.read(headers, body))
    except InvalidError:
        return Outcome(502, NO_EVENT, again=True) if body else Outcome(status, delivered=True)
