"""Hearing of changes, which Redis publishes on the channel of a job, named as the key of its record.

All requests of a process that wait share one subscribed connection: https://redis.io/docs/latest/develop/pubsub/
"""

import asyncio
import logging
from contextlib import suppress
from functools import cache
from typing import Any

from knative_jobs.runtime import shutdown
from knative_jobs.runtime.errors import UnavailableError
from knative_jobs.runtime.greenlets import in_background
from knative_jobs.runtime.settings import settings
from knative_jobs.store.primary import CHECK_SECONDS, NO_ANSWER, REFUSAL, ROLE, connect, is_replica
from knative_jobs.store.shared_connection import check_soon

RECONNECT_SECONDS = 0.5

_log = logging.getLogger("knative_jobs.store")


async def subscribe(job_id: str) -> asyncio.Event:
    """Return an event that is set whenever the job may have changed; clear it before reading the job.

    It is set for the first time once no further change can be missed, and again after each change, once there is
    another connection after one that broke or led to an old primary, and when this process is told to stop.

    Raises:
        UnavailableError: Redis is away.
    """
    changed = asyncio.Event()
    await _listener().add(_channel(job_id), changed)
    return changed


async def unsubscribe(job_id: str, changed: asyncio.Event) -> None:
    """End a subscription."""
    await _listener().remove(_channel(job_id), changed)


def _channel(job_id: str) -> bytes:
    return f"{settings().redis_key_prefix}job.{job_id}".encode()


class _Listener:
    """The one subscriber of an event loop."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, set[asyncio.Event]] = {}
        self._asked_for: set[bytes] = set()
        self._confirmed: set[bytes] = set()
        self._connection: Any = None
        self._connecting: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        shutdown.call_when_stopping(lambda: loop.call_soon_threadsafe(self._wake, *self._waiting))

    async def add(self, channel: bytes, changed: asyncio.Event) -> None:
        self._waiting.setdefault(channel, set()).add(changed)
        if channel in self._confirmed:
            changed.set()
        try:
            while not self._connection:  # the one that was made for this may have broken meanwhile
                await self._connected()
            if channel not in self._asked_for:
                await self._ask_for(self._connection, channel)
        except NO_ANSWER as error:
            await self.remove(channel, changed)
            raise UnavailableError("The store does not answer; try again shortly.") from error

    async def remove(self, channel: bytes, changed: asyncio.Event) -> None:
        others = self._waiting.get(channel, set())
        others.discard(changed)
        if not others:
            self._waiting.pop(channel, None)
            self._asked_for.discard(channel)
            self._confirmed.discard(channel)
            if self._connection:
                with suppress(*NO_ANSWER):
                    # At once, or it might come after the next SUBSCRIBE.
                    await self._connection.send_command("UNSUBSCRIBE", channel, check_health=False)

    async def _connected(self) -> None:
        self._connecting = self._connecting or in_background(self._connect())
        await asyncio.shield(self._connecting)

    async def _connect(self) -> None:
        """Connect, and subscribe to all that somebody waits for."""
        try:
            connection = await connect()
            if self._waiting:
                await self._ask_for(connection, *self._waiting)
        except NO_ANSWER:
            self._asked_for.clear()
            raise
        finally:
            self._connecting = None
        self._connection = connection
        in_background(self._keep(connection))

    async def _ask_for(self, connection: Any, *channels: bytes) -> None:
        self._asked_for.update(channels)
        await connection.send_command("SUBSCRIBE", *channels, check_health=False)

    async def _keep(self, connection: Any) -> None:
        """Listen to a connection, and have another after it while somebody waits."""
        try:
            await self._listen(connection)
        except NO_ANSWER:
            pass
        except Exception:  # whoever waits must not depend on what it is
            _log.exception("the connection that hears of changes is given up")
        await connection.disconnect(nowait=True)
        check_soon()  # who is woken shall not read what is old
        self._connection = None
        self._asked_for.clear()
        self._confirmed.clear()
        while self._waiting and not self._connection:
            await asyncio.sleep(RECONNECT_SECONDS)
            with suppress(*NO_ANSWER):
                await self._connected()

    async def _listen(self, connection: Any) -> None:
        """Wake those who wait, until the connection breaks, does not answer any more, or leads to a replica."""
        asked = False
        while True:
            try:
                heard = await connection.read_response(push_request=True, timeout=CHECK_SECONDS)
            except REFUSAL:  # this user may subscribe, and not ask for the role
                heard = []
            match heard:
                case None if asked:
                    return
                case None:
                    if self._waiting:
                        asked = True
                        await connection.send_command(*ROLE, check_health=False)
                case [b"message" | b"subscribe" | b"unsubscribe" as kind, channel, _]:
                    if kind == b"subscribe":
                        self._confirmed.add(channel)
                    if kind != b"unsubscribe":
                        self._wake(channel)
                case role:
                    asked = False
                    if is_replica(role):
                        return

    def _wake(self, *channels: bytes) -> None:
        for channel in channels:
            for changed in self._waiting.get(channel, ()):
                changed.set()


@cache
def _listener() -> _Listener:
    return _Listener()
