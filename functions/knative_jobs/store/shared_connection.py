"""The connection that all requests on an event loop share.

What they send in one turn of the loop goes out in one piece, and while one waits for its replies the others go on.
"""

import asyncio
import time
from collections import deque
from functools import cache
from typing import Any, NamedTuple

import hiredis
import redis

from knative_jobs.runtime import greenlets
from knative_jobs.store.lua_scripts import Command
from knative_jobs.store.primary import (
    ANSWER_SECONDS,
    CHECK_SECONDS,
    REFUSAL,
    ROLE,
    FromReplica,
    connect,
    is_from_wrong_server,
    is_replica,
)


class _Call(NamedTuple):
    """Commands that have been sent, the replies so far, and who waits for all of them."""

    length: int
    replies: list[Any]
    done: asyncio.Future[list[Any]]


class _InterruptedError(redis.exceptions.ConnectionError):
    """The connection was given up for the sake of another call, before this one had waited for long."""


class SharedConnection:
    """The connection that requests share. When it is given up, the next call makes another."""

    def __init__(self) -> None:
        self._line: _Line | None = None
        self._connecting: asyncio.Task[None] | None = None

    async def call(self, commands: list[Command]) -> list[Any]:
        """Send the commands and return their replies.

        Raises:
            redis.exceptions.ConnectionError: there is no connection, or it broke.
            redis.exceptions.TimeoutError: there was no answer in time.
        """
        try:
            return await self._call(commands)
        except _InterruptedError:
            return await self._call(commands)

    def check_soon(self) -> None:
        if self._line:
            self._line.check_soon()

    async def _call(self, commands: list[Command]) -> list[Any]:
        while not (self._line and self._line.is_open):
            self._connecting = self._connecting or asyncio.get_running_loop().create_task(self._connect())
            await asyncio.shield(self._connecting)
        return await self._line.call(commands)

    async def _connect(self) -> None:
        try:
            self._line = _Line(await connect())
        finally:
            self._connecting = None


def check_soon() -> None:
    """Have the connection of this event loop ask for the role of its server with the next call."""
    shared().check_soon()


class _Line:
    """One connection, and the calls on it. Redis answers in the order of the commands."""

    def __init__(self, connection: Any) -> None:
        self.is_open = True
        """Whether it takes calls. One that does not still gives the replies to those that it took before."""
        self._connection = connection
        self._check_at = 0.0
        self._role: _Call | None = None
        self._is_replica = False
        self._to_send: list[bytes] = []
        self._unanswered: deque[_Call] = deque()
        greenlets.in_background(self._read())

    def call(self, commands: list[Command]) -> asyncio.Future[list[Any]]:
        """Return what will be the replies; they are sent with all others of this turn of the loop."""
        if not self._to_send:
            asyncio.get_running_loop().call_soon(self._flush)
            if (now := time.monotonic()) >= self._check_at:
                self._check_at = now + CHECK_SECONDS
                self._role = self._add([ROLE])
        return self._add(commands).done

    def check_soon(self) -> None:
        """Ask for the role of the server with the next call."""
        self._check_at = 0

    def _add(self, commands: list[Command]) -> _Call:
        call = _Call(len(commands), [], asyncio.get_running_loop().create_future())
        self._to_send += map(hiredis.pack_command, commands)
        self._unanswered.append(call)
        return call

    def _flush(self) -> None:
        if self._to_send:
            asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._late, self._unanswered[-1])
            greenlets.in_background(self._connection.send_packed_command(self._to_send, check_health=False))
        self._to_send = []

    async def _read(self) -> None:
        """Hand each reply to the call that it belongs to, until the connection ends."""
        try:
            while True:
                try:
                    reply = await self._connection.read_response()
                except REFUSAL as error:
                    reply = error
                call = self._unanswered[0]
                call.replies.append(reply)
                if call is self._role:
                    self._is_replica = is_replica(reply)
                    self.is_open &= not self._is_replica
                elif is_from_wrong_server(reply):
                    self.is_open = False
                if len(call.replies) == call.length:
                    self._unanswered.popleft()
                    if not call.done.done():
                        call.done.set_result(FromReplica(call.replies) if self._is_replica else call.replies)
                if not (self.is_open or self._unanswered):
                    self._end(redis.exceptions.ConnectionError("it does not lead to the primary"))
                    return
        except redis.exceptions.ConnectionError as error:
            self._end(error)

    def _late(self, call: _Call) -> None:
        """Give up the connection if a call was not answered in time. What has waited for less is interrupted."""
        if len(call.replies) == call.length or not self._unanswered:
            return
        for _ in range(self._unanswered.index(call) + 1):
            _fail(self._unanswered.popleft(), redis.exceptions.TimeoutError("no answer in time"))
        self._end(_InterruptedError("another call was not answered in time"))

    def _end(self, error: Exception) -> None:
        """Close the connection, and with it all that has no reply yet."""
        greenlets.in_background(self._connection.disconnect(nowait=True))
        self.is_open = False
        self._to_send = []
        while self._unanswered:
            _fail(self._unanswered.popleft(), error)


def _fail(call: _Call, error: Exception) -> None:
    if not call.done.done():
        call.done.set_exception(error)


@cache
def shared() -> SharedConnection:
    """Return the shared connection of this process, which has one event loop."""
    return SharedConnection()
