"""Running Lua scripts in Redis, one round trip at a time. The only module that knows redis-py.

A request on the server's event loop shares one connection with all others of its process: what they send in one turn of
the loop goes out in one piece, and while one waits for its replies the others go on. Any other thread has a connection
of its own, which blocks.

A call is repeated once when its connection breaks; the scripts are written so that a repetition does no harm.
"""

import asyncio
import hashlib
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import hiredis

# redis imports OpenTelemetry's metrics wherever they are installed. Nothing here uses them, and they are a third of the
# time that its import takes at every start: so they are not to be found until it is imported.
_hidden = sys.modules.setdefault("opentelemetry", None) is None  # type: ignore[arg-type]
import redis  # noqa: E402
from redis.asyncio.connection import ConnectionPool as AsyncConnectionPool  # noqa: E402
from redis.backoff import ExponentialBackoff, NoBackoff  # noqa: E402
from redis.retry import Retry  # noqa: E402

if _hidden:
    del sys.modules["opentelemetry"]

from knative_jobs.runtime import greenlets  # noqa: E402
from knative_jobs.runtime.errors import UnavailableError  # noqa: E402
from knative_jobs.runtime.settings import settings  # noqa: E402

ANSWER_SECONDS = 1
"""How long Redis may take to answer, and to take a connection."""
REFUSE_SECONDS = 1
"""After a call that failed, so long all others fail at once: none shall wait in vain."""
NO_ANSWER = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
"""What redis-py raises when Redis is away."""
_REFUSES_WRITES = (redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError)

_LUA = Path(__file__).with_name("lua")
_SHARED = ("prelude", "render", "standing")
"""The files of `lua/` that are no scripts: what scripts share."""

Command = tuple[Any, ...]


def run(name: str, *args: Any) -> Any:
    """Run the script `lua/NAME.lua` with these arguments, and return its reply.

    Raises:
        UnavailableError: Redis is away, or takes no writes; an endpoint knows so in under three seconds.
    """
    return _run_all([(name, *args)])[0]


def run_all(calls: Sequence[Command], tries: int = 1) -> list[Any]:
    """Run scripts, each given as its name and arguments, in one round trip.

    Args:
        calls: the scripts.
        tries: how often to try while Redis is away. There is a second between two, less at first; only a thread that
            may block can wait for that.

    Raises:
        UnavailableError: as `run`.
    """
    patience = Retry(ExponentialBackoff(base=0.05, cap=1), tries - 1, supported_errors=(UnavailableError,))
    replies: list[Any] = patience.call_with_retry(lambda: _run_all(calls), lambda _: None)
    return replies


def _run_all(calls: Sequence[Command]) -> list[Any]:
    commands = [("EVALSHA", _script(name).sha, 0, *args) for name, *args in calls]
    try:
        replies = _call(commands)
        for i, reply in enumerate(replies):
            if isinstance(reply, redis.exceptions.NoScriptError):
                _, replies[i] = _call([("SCRIPT", "LOAD", _script(calls[i][0]).text), commands[i]])
    except NO_ANSWER as error:
        raise UnavailableError("The store does not answer. Nothing was lost; try again shortly.") from error
    for reply in replies:
        if isinstance(reply, redis.exceptions.ResponseError):
            if isinstance(reply, _REFUSES_WRITES) or str(reply).startswith(("MISCONF", "NOREPLICAS")):
                raise UnavailableError("The store takes no writes now. Nothing was changed; try later.") from reply
            raise reply
    return replies


class _Script(NamedTuple):
    text: str
    sha: str


@cache
def _script(name: str) -> _Script:
    """Return a script, after those blocks of the shared files that it uses, directly or not."""
    text = (_LUA / f"{name}.lua").read_text()
    for block in reversed(_shared_blocks()):
        names = re.findall(r"\w+", re.findall(r"^local (?:function )?([\w, ]+)", block, re.MULTILINE)[0])
        if re.search(rf"\b({'|'.join(names)})\b", re.sub("--.*", "", text)):
            text = f"{block}\n\n{text}"
    return _Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


@cache
def _shared_blocks() -> list[str]:
    blocks = "\n\n".join((_LUA / f"{part}.lua").read_text() for part in _SHARED).split("\n\n")
    return [block for block in blocks if re.search("^local ", block, re.MULTILINE)]


async def connect(**how: Any) -> Any:
    """Return a new connection for the event loop: redis-py's, with more of its options where there are any.

    Raises:
        NO_ANSWER: there is none to be had in time.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            pool: Any = AsyncConnectionPool.from_url(**_options(), socket_timeout=None, **how)
            connection = pool.make_connection()
            await connection.connect()
    except TimeoutError as error:
        raise redis.exceptions.TimeoutError("no connection in time") from error
    return connection


def _options() -> dict[str, Any]:
    """Return how every connection to REDIS_URL is made, in redis-py's words."""
    return {
        "url": settings().redis_url,
        "username": settings().redis_username or None,
        "password": settings().redis_password or None,
        "socket_connect_timeout": ANSWER_SECONDS,
        "driver_info": None,  # saves two round trips on every new connection
    }


_refused_until = 0.0


def _call(commands: list[Command]) -> list[Any]:
    """Return the replies, an error among them as it is. What finds no answer is sent once more."""
    global _refused_until
    if time.monotonic() < _refused_until:
        raise redis.exceptions.ConnectionError("it did not answer a moment ago")
    try:
        try:
            return _send(commands)
        except NO_ANSWER:
            return _send(commands)
    except NO_ANSWER:
        _refused_until = time.monotonic() + REFUSE_SECONDS
        raise


def _send(commands: list[Command]) -> list[Any]:
    if greenlets.on_loop():
        return greenlets.wait_for(_shared().call(commands))
    connection = _own().connection
    try:
        connection.send_packed_command(connection.pack_commands(commands))
        return [_reply(connection) for _ in commands]
    except NO_ANSWER:
        connection.disconnect()
        raise


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.exceptions.ResponseError as error:
        return error


class _Own(threading.local):
    """A thread's own connection: a pool's book-keeping costs as much as a whole call without it."""

    def __init__(self) -> None:
        retry = Retry(NoBackoff(), 0)
        pool = redis.ConnectionPool.from_url(**_options(), socket_timeout=ANSWER_SECONDS, retry=retry)
        self.connection: Any = pool.make_connection()


@cache
def _own() -> _Own:
    return _Own()


class _Call(NamedTuple):
    """Commands that have been sent, the replies so far, and who waits for all of them."""

    length: int
    replies: list[Any]
    done: asyncio.Future[list[Any]]


class _Shared:
    """The one connection of an event loop. Redis answers in the order of the commands."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._connecting: asyncio.Task[None] | None = None
        self._to_send: list[bytes] = []
        self._unanswered: deque[_Call] = deque()

    async def call(self, commands: list[Command]) -> list[Any]:
        """Send the commands and return their replies.

        Raises:
            redis.exceptions.ConnectionError: there is no connection, or it broke.
            redis.exceptions.TimeoutError: there was no answer in time.
        """
        loop = asyncio.get_running_loop()
        while not self._connection:
            self._connecting = self._connecting or loop.create_task(self._connect())
            await asyncio.shield(self._connecting)
        call = _Call(len(commands), [], loop.create_future())
        if not self._to_send:
            loop.call_soon(self._flush)
        self._to_send += map(hiredis.pack_command, commands)
        self._unanswered.append(call)
        return await call.done

    async def _connect(self) -> None:
        try:
            self._connection = await connect()
        finally:
            self._connecting = None
        greenlets.in_background(self._read())

    def _flush(self) -> None:
        """Send what was asked for in this turn of the loop."""
        if self._to_send:
            asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._late, self._unanswered[-1])
            greenlets.in_background(self._connection.send_packed_command(self._to_send, check_health=False))
        self._to_send = []

    async def _read(self) -> None:
        """Hand each reply to the call that it belongs to, until the connection ends."""
        connection = self._connection
        try:
            while True:
                try:
                    reply = await connection.read_response()
                except redis.exceptions.ResponseError as error:
                    reply = error
                call = self._unanswered[0]
                call.replies.append(reply)
                if len(call.replies) == call.length:
                    self._unanswered.popleft()
                    if not call.done.done():
                        call.done.set_result(call.replies)
        except redis.exceptions.ConnectionError as error:
            if connection is self._connection:
                self._end(error)

    def _late(self, call: _Call) -> None:
        if not call.done.done():
            self._end(redis.exceptions.TimeoutError("no answer in time"))

    def _end(self, error: Exception) -> None:
        """Give up the connection, and with it all that has no reply yet."""
        if self._connection:
            greenlets.in_background(self._connection.disconnect(nowait=True))
        self._connection = None
        self._to_send = []
        while self._unanswered:
            call = self._unanswered.popleft()
            if not call.done.done():
                call.done.set_exception(error)


@cache
def _shared() -> _Shared:
    return _Shared()
