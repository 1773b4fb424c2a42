"""The Broker: takes CloudEvents over HTTP and brings each to every Trigger that it matches.

It answers 202 at once. It holds events in memory only, brings them in any order, and some of them twice: what it loses
when it is killed, the sweeper announces again.
"""

import asyncio
from collections.abc import Iterable

from aiohttp import web

from knative_jobs.events import cloudevent
from knative_jobs.events.cloudevent import Event
from knative_jobs.runtime.errors import InvalidError
from local import delivery, manifests
from local.activator import Post
from local.log import say

MAX_OPEN_PER_TRIGGER = 1000
"""More than the workers of a kind do at once: what waits for one of them is with the autoscaler, which counts it."""


class Broker:
    """Takes events and delivers them in the background."""

    def __init__(self, post: Post, triggers: Iterable[manifests.Trigger]) -> None:
        """Deliver to these Triggers."""
        self._post = post
        self._triggers = [(trigger, asyncio.Semaphore(MAX_OPEN_PER_TRIGGER)) for trigger in triggers]
        self._open: set[asyncio.Task[None]] = set()

    async def receive(self, request: web.BaseRequest) -> web.Response:
        """Take an event: 202, or 400 for what is none."""
        if request.method != "POST":
            return web.Response(status=405, headers={"Allow": "POST"}, text="events are sent with POST\n")
        try:
            event = cloudevent.read(request.headers, await request.read())
        except InvalidError as error:
            return web.Response(status=400, text=f"{error}\n")
        self._ingest(event)
        await asyncio.sleep(0)  # the deliveries go first; nobody waits for the answer
        return web.Response(status=202)

    def _ingest(self, event: Event) -> None:
        for trigger, slots in self._triggers:
            if _matches(event, trigger):
                task = asyncio.create_task(self._deliver(trigger, slots, event))
                self._open.add(task)
                task.add_done_callback(self._open.discard)

    async def _deliver(self, trigger: manifests.Trigger, slots: asyncio.Semaphore, event: Event) -> None:
        to, how = trigger.subscriber, trigger.delivery
        outcome = await delivery.deliver(self._post, to, event, how, slots)
        if outcome.reply:
            self._ingest(outcome.reply)
        if outcome.delivered:
            return
        say("broker", f"event {event.attributes['id']!r} was not delivered to {to}: {outcome.status}")
        if how.dead_letter_sink:
            dead = delivery.dead_letter(event, to, outcome)
            outcome = await delivery.deliver(self._post, how.dead_letter_sink, dead, how, slots)
            if not outcome.delivered:
                say("broker", f"nor was its dead letter, to {how.dead_letter_sink}: {outcome.status}")


def _matches(event: Event, trigger: manifests.Trigger) -> bool:
    """Tell whether the event has all attributes that the Trigger asks for. An empty value matches anything."""
    return all(not value or event.attributes.get(name) == value for name, value in trigger.attributes.items())
