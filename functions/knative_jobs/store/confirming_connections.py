"""The connections of an event loop for confirmed calls.

WAIT blocks a connection, so other calls use the shared one. Calls that arrive while these connections are busy are sent
together, with one WAIT after them.
"""

import asyncio
from functools import cache
from itertools import islice
from typing import Any

import hiredis
import redis

from knative_jobs.runtime import greenlets
from knative_jobs.store import confirmation
from knative_jobs.store.lua_scripts import Command
from knative_jobs.store.primary import ANSWER_SECONDS, NO_ANSWER, REFUSAL, connect, is_from_wrong_server

CONNECTIONS = 4
"""The most connections for confirmed calls that an event loop has."""


class ConfirmingConnections:
    """Sends confirmed calls, as many together as have arrived."""

    def __init__(self) -> None:
        self._calls: list[tuple[list[Command], asyncio.Future[list[Any]]]] = []
        self._idle = [_Confirmed() for _ in range(CONNECTIONS)]

    async def call(self, commands: list[Command]) -> list[Any]:
        """Return the replies, and those to `confirmation.commands`. For what it raises see `SharedConnection.call`."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Any]] = loop.create_future()
        self._calls.append((commands, done))
        if len(self._calls) == 1:
            loop.call_soon(self._start)
        return await done

    def _start(self) -> None:
        if self._calls and self._idle:
            greenlets.in_background(self._serve(self._idle.pop()))

    async def _serve(self, connection: "_Confirmed") -> None:
        """Send the calls that have arrived, until none is left."""
        while self._calls:
            calls, self._calls = self._calls, []
            try:
                replies = await connection.exchange([command for commands, _ in calls for command in commands])
            except NO_ANSWER as error:
                for _, done in calls:
                    if not done.done():
                        done.set_exception(error)
            else:
                own, waited = iter(replies[:-2]), replies[-2:]
                for commands, done in calls:
                    of_call = [*islice(own, len(commands)), *waited]
                    if not done.done():
                        done.set_result(of_call)
                if not confirmation.is_confirmed(waited):  # there may be another primary
                    for one in (connection, *self._idle):
                        await one.close()
        self._idle.append(connection)


class _Confirmed:
    """One connection for confirmed calls. It connects when it is used."""

    def __init__(self) -> None:
        self._connection: Any = None

    async def exchange(self, commands: list[Command]) -> list[Any]:
        """Send commands and `confirmation.commands`, and return all replies."""
        sent = [*commands, *confirmation.commands()]
        self._connection = connection = self._connection or await connect()
        try:
            async with asyncio.timeout(ANSWER_SECONDS) as limit:
                await connection.send_packed_command(list(map(hiredis.pack_command, sent)), check_health=False)
                replies: list[Any] = [await self._reply(connection) for _ in sent[1:]]
                limit.reschedule(asyncio.get_running_loop().time() + ANSWER_SECONDS + confirmation.seconds())
                replies.append(await self._reply(connection))
        except (TimeoutError, *NO_ANSWER) as error:
            await self.close()
            if isinstance(error, TimeoutError):
                raise redis.exceptions.TimeoutError("no answer in time") from error
            raise
        if any(map(is_from_wrong_server, replies)):
            await self.close()
        return replies

    async def _reply(self, connection: Any) -> Any:
        try:
            return await connection.read_response()
        except REFUSAL as error:
            return error

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            await connection.disconnect(nowait=True)


@cache
def confirming() -> ConfirmingConnections:
    """Return the connections for confirmed calls of this process, which has one event loop."""
    return ConfirmingConnections()
