"""The Broker: takes CloudEvents over HTTP and brings each to every Trigger that it matches.

`python -m local.broker FD ACTIVATOR [COMPONENT ...]` serves the listening socket FD, which the supervisor made, so that
the address outlives this process. Its Triggers are those of `knative/base` and of the folders COMPONENT. It answers 202
at once. It holds events in memory only, brings them in any order, and some of them twice: what it loses when it is
killed, the sweeper announces again.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

import aiohttp
from aiohttp import web

from local import delivery, manifests

MAX_OPEN_PER_TRIGGER = 100


class Broker:
    """Takes events and delivers them in the background."""

    def __init__(self, session: aiohttp.ClientSession, triggers: Iterable[manifests.Trigger]) -> None:
        """Deliver to these Triggers, with this HTTP client."""
        self._session = session
        self._triggers = [(trigger, asyncio.Semaphore(MAX_OPEN_PER_TRIGGER)) for trigger in triggers]
        self._open: set[asyncio.Task[None]] = set()

    async def receive(self, request: web.BaseRequest) -> web.Response:
        """Take an event: 202, or 400 for what is none."""
        if request.method != "POST":
            return web.Response(status=405, headers={"Allow": "POST"}, text="events are sent with POST\n")
        try:
            event = delivery.read(request.headers, await request.read())
        except delivery.NotAnEventError as error:
            return web.Response(status=400, text=f"this is no CloudEvent: {error}\n")
        self._ingest(event)
        return web.Response(status=202)

    def _ingest(self, event: delivery.Event) -> None:
        for trigger, slots in self._triggers:
            if event.matches(trigger.attributes):
                task = asyncio.create_task(self._deliver(trigger, slots, event))
                self._open.add(task)
                task.add_done_callback(self._open.discard)

    async def _deliver(self, trigger: manifests.Trigger, slots: asyncio.Semaphore, event: delivery.Event) -> None:
        to, how = trigger.subscriber, trigger.delivery
        outcome = await delivery.deliver(self._session, to, event, how, slots)
        if outcome.reply:
            self._ingest(outcome.reply)
        if outcome.delivered:
            return
        print(f"event {event.headers['ce-id']!r} was not delivered to {to}: {outcome.status}", flush=True)
        if how.dead_letter_sink:
            dead = event.dead(to, outcome)
            outcome = await delivery.deliver(self._session, how.dead_letter_sink, dead, how, slots)
            if not outcome.delivered:
                print(f"nor was its dead letter, to {how.dead_letter_sink}: {outcome.status}", flush=True)


async def main(listener: socket.socket, activator: str, *components: Path) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    # No limit of our own: the activator bounds how long a request may last, and the Triggers how many are open.
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        broker = Broker(session, manifests.triggers(manifests.BASE, activator, *components))
        runner = web.ServerRunner(web.Server(broker.receive, access_log=None), shutdown_timeout=1)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        await stop.wait()
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], *map(Path, sys.argv[3:])))
