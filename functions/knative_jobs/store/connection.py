"""Running Lua scripts in Redis, one round trip at a time. The only module that knows redis-py.

A request on the server's event loop shares one connection with all others of its process: what they send in one turn of
the loop goes out in one piece, and while one waits for its replies the others go on. Any other thread has a connection
of its own, which blocks.

A call is repeated once when its connection breaks; the scripts are written so that a repetition does no harm.

After a failover an open connection may still lead to the old primary, which is a replica now. Writes are refused then;
and every CHECK_SECONDS a connection in use is asked for the role of its server, so a process that only reads finds out
too. Such a connection is closed, and the call is repeated once on a new one.

A call that is `confirmed` waits until as many replicas have what it wrote as REDIS_WAIT_REPLICAS says. WAIT blocks the
connection that it is sent on and speaks of what was written there, so on the event loop these calls have connections of
their own. All that have come while those were busy go out together, with one WAIT behind them.
"""

import asyncio
import hashlib
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import hiredis

# redis imports OpenTelemetry's metrics wherever they are installed. Nothing here uses them, and they are a third of the
# time that its import takes at every start: so they are not to be found until it is imported.
_hidden = sys.modules.setdefault("opentelemetry", None) is None  # type: ignore[arg-type]
import redis  # noqa: E402
import redis.asyncio  # noqa: E402
from redis.backoff import ExponentialBackoff, NoBackoff  # noqa: E402
from redis.retry import Retry  # noqa: E402

if _hidden:
    del sys.modules["opentelemetry"]

from knative_jobs.runtime import greenlets, redis_url  # noqa: E402
from knative_jobs.runtime.errors import UnavailableError, UnconfirmedError  # noqa: E402
from knative_jobs.runtime.settings import settings  # noqa: E402
from knative_jobs.store import cluster  # noqa: E402

ANSWER_SECONDS = 1
"""How long Redis may take to answer, and to take a connection."""
SENTINEL_SECONDS = 0.3
"""The same for a Sentinel; then the next is asked."""
REPLICA_SECONDS, DISK_SECONDS = 1, 2
"""How long replicas, or disks too, may take to confirm a write. With `appendfsync everysec` a disk takes a second."""
CONFIRMING_CONNECTIONS = 4
"""So many an event loop has at most for calls that are confirmed."""
REFUSE_SECONDS = 1
"""After a call that got no answer in time twice, so long all others fail at once: none shall wait in vain."""
CHECK_SECONDS = 1
"""A connection in use is asked so often whether it leads to the primary."""
ROLE = ("ROLE",)
"""The command that asks for it: https://redis.io/docs/latest/commands/role/"""
NO_ANSWER = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
"""What redis-py raises when Redis is away, still loads its data, or does not know the user or password (any more)."""
REFUSAL = redis.exceptions.ResponseError
"""What redis-py raises when Redis refuses a command."""
_WRONG_SERVER = (
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterDownError,  # MasterDownError too
    redis.exceptions.NoPermissionError,  # as by another server with other users
    redis.exceptions.AskError,  # MovedError too
    redis.exceptions.TryAgainError,
)
_WRONG_SERVER_CODES = ("UNBLOCKED", "NOREPLICAS")  # which redis-py has no exceptions for

_TOUCH = "touch"
"""The script that writes something and changes nothing."""
_LUA = Path(__file__).with_name("lua")
_SHARED = ("prelude", "render", "listing", "standing")
"""The files of `lua/` that are no scripts: what scripts share."""

_KEY = "jobs"
"""The key that each call declares. It is never there; all keys of an installation are in its Redis Cluster slot."""

Command = tuple[Any, ...]


def run(name: str, *args: Any) -> Any:
    """Run the script `lua/NAME.lua` with these arguments, and return its reply.

    Raises:
        UnavailableError: Redis is away, or takes no writes; an endpoint knows so in under three seconds.
    """
    return _run_all([(name, *args)])[0]


def run_all(
    calls: Sequence[Command],
    tries: int = 1,
    *,
    confirmed: bool = False,
    undo: Callable[[list[Any]], list[Command]] | None = None,
) -> list[Any]:
    """Run scripts, each given as its name and arguments, in one round trip.

    Args:
        calls: the scripts.
        tries: how often to try while Redis is away. There is a second between two, less at first; only a thread that
            may block can wait for that.
        confirmed: whether to return only once as many replicas have what was written as the settings say.
        undo: gets the replies, and returns scripts that take back what is not confirmed. They run on the same server;
            only a thread that may block can have that.

    Raises:
        UnavailableError: as `run`.
        UnconfirmedError: too few replicas have what was written.
    """
    patience = Retry(ExponentialBackoff(base=0.05, cap=1), tries - 1, supported_errors=(UnavailableError,))
    replies: list[Any] = patience.call_with_retry(lambda: _run_all(calls, confirmed, undo), lambda _: None)
    return replies


def _run_all(
    calls: Sequence[Command], confirmed: bool = False, undo: Callable[[list[Any]], list[Command]] | None = None
) -> list[Any]:
    confirmed = confirmed and bool(settings().redis_wait_replicas or settings().redis_wait_fsync)
    commands = [_evalsha(name, *args) for name, *args in calls]
    try:
        replies = _call(commands, confirmed)
        for i, reply in enumerate(replies):
            if isinstance(reply, redis.exceptions.NoScriptError):
                name, again = (calls[i][0], commands[i : i + 1]) if i < len(calls) else (_TOUCH, [])
                _, *more = _call([_load(name), *again], confirmed)
                replies[i : i + len(again)] = more[: len(again)]
                replies[len(calls) :] = more[len(again) :]
    except NO_ANSWER as error:
        raise UnavailableError("The store does not answer. Nothing was lost; try again shortly.") from error
    replies, confirmation = replies[: len(calls)], replies[len(calls) :]
    for reply in replies:
        if isinstance(reply, REFUSAL):
            refused = isinstance(reply, redis.exceptions.OutOfMemoryError) or str(reply).startswith("MISCONF")
            if refused or _is_from_wrong_server(reply):
                raise UnavailableError("The store takes no writes now. Nothing was changed; try later.") from reply
            raise reply
    if confirmed and not _is_confirmed(confirmation):
        if not greenlets.on_loop():
            _own().end(
                [
                    command
                    for name, *args in (undo(replies) if undo else ())
                    for command in (_load(name), _evalsha(name, *args))
                ]
            )
        raise _unconfirmed(confirmation, replies)
    return replies


def _load(name: str) -> Command:
    return ("SCRIPT", "LOAD", _script(name).text)


def _evalsha(name: str, *args: Any) -> Command:
    return ("EVALSHA", _script(name).sha, 1, _prefix() + _KEY, *args)


def _confirmation() -> list[Command]:
    """Return what follows the calls that are to be confirmed: https://redis.io/docs/latest/commands/waitaof/

    WAIT waits for what was written last on its connection. A call that is repeated may find its work done and write
    nothing there; so something is written that changes nothing.
    """
    replicas, ms = settings().redis_wait_replicas, _confirm_seconds() * 1000
    wait = ("WAITAOF", 1, replicas, ms) if settings().redis_wait_fsync else ("WAIT", replicas, ms)
    return [_evalsha(_TOUCH), wait]


def _is_confirmed(replies: list[Any]) -> bool:
    """Tell whether these replies to `_confirmation` say that enough replicas and disks have it."""
    touched, waited = replies
    local, replicas = waited if isinstance(waited, list) else (1, waited)
    refused = isinstance(touched, REFUSAL) or isinstance(waited, REFUSAL)
    return not refused and bool(local) and replicas >= settings().redis_wait_replicas


def _unconfirmed(confirmation: list[Any], replies: list[Any]) -> UnconfirmedError:
    places = [f"{settings().redis_wait_replicas} replicas"] if settings().redis_wait_replicas else []
    places += ["the disk of Redis"] if settings().redis_wait_fsync else []
    error = UnconfirmedError(
        f"This is saved, but not on {' and '.join(places)} within {_confirm_seconds()} s, so a failover may lose it. "
        "A submission that is repeated with the same Idempotency-Key makes no second job.",
        replies,
    )
    error.__cause__ = next((reply for reply in confirmation if isinstance(reply, REFUSAL)), None)
    return error


def _confirm_seconds() -> int:
    return DISK_SECONDS if settings().redis_wait_fsync else REPLICA_SECONDS


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
    text = f"local PREFIX = '{_prefix()}'\n\n{text}"
    return _Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _prefix() -> str:
    return settings().redis_key_prefix


@cache
def _shared_blocks() -> list[str]:
    blocks = "\n\n".join((_LUA / f"{part}.lua").read_text() for part in _SHARED).split("\n\n")
    return [block for block in blocks if re.search("^local ", block, re.MULTILINE)]


async def connect() -> Any:
    """Return a new connection for the event loop: redis-py's.

    Raises:
        NO_ANSWER: there is none to be had in time.
    """
    to_ask = SENTINEL_SECONDS if _url().service else cluster.NODE_SECONDS if _url().is_cluster else 0
    try:
        async with asyncio.timeout(ANSWER_SECONDS + to_ask * len(_url().nodes)):
            connection = _pool_of_loop().make_connection()
            await connection.connect()
    except TimeoutError as error:
        raise redis.exceptions.TimeoutError("no connection in time") from error
    except REFUSAL as error:
        raise redis.exceptions.ConnectionError(f"no connection: {error}") from error
    return connection


@cache
def _pool_of_loop() -> Any:
    return pool(redis.asyncio, socket_timeout=None)


def pool(client: Any, **how: Any) -> Any:
    """Return what makes connections to the primary of REDIS_URL.

    With Sentinels, each connection that is made asks them where the primary is; in a cluster, it finds the node that
    has our keys.

    Args:
        client: `redis` for connections that block, `redis.asyncio` for those of an event loop.
        how: further options of redis-py.
    """
    s = settings()
    common = {
        "socket_connect_timeout": ANSWER_SECONDS,
        "retry": client.retry.Retry(NoBackoff(), 0),
        "driver_info": None,  # saves two round trips on every new connection
    }
    own = {"username": s.redis_username or None, "password": s.redis_password or None, **common, **how}
    if not (_url().service or _url().is_cluster):
        return client.ConnectionPool.from_url(_url().url, **own)
    options = redis.connection.parse_url(_url().url)  # type: ignore[no-untyped-call]
    for name in ("host", "port"):
        options.pop(name, None)
    tls = options.pop("connection_class", None) is not None
    if _url().is_cluster:
        own |= {"socket_connect_timeout": cluster.NODE_SECONDS, "slot": _slot()}
        return client.ConnectionPool(cluster.connection_class(client, tls), **options | own)
    known = client.sentinel.Sentinel(
        _url().nodes,
        sentinel_kwargs={
            "username": s.redis_sentinel_username or None,
            "password": s.redis_sentinel_password or None,
            **common,
            "socket_timeout": SENTINEL_SECONDS,
            "socket_connect_timeout": SENTINEL_SECONDS,
            "ssl": tls,
            **{name: value for name, value in options.items() if name.startswith("ssl_")},
        },
    )
    return client.sentinel.SentinelConnectionPool(_url().service, known, ssl=tls, **own, **options)


@cache
def _slot() -> cluster.Slot:
    return cluster.Slot(_prefix() + _KEY, _url().nodes)


def _url() -> redis_url.RedisUrl:
    return redis_url.parse(settings().redis_url)


_refused_until = 0.0


def _call(commands: list[Command], confirmed: bool = False) -> list[Any]:
    """Return the replies, an error among them as it is. They are sent once more if the first try finds no primary."""
    global _refused_until
    if time.monotonic() < _refused_until:
        raise redis.exceptions.ConnectionError("it did not answer a moment ago")
    try:
        try:
            replies = _send(commands, confirmed)
        except NO_ANSWER:
            if time.monotonic() < _refused_until:  # another call has tried twice meanwhile
                raise
            return _send(commands, confirmed)
        if isinstance(replies, _FromReplica) or any(map(_is_from_wrong_server, replies)):
            return _send(commands, confirmed)
        return replies
    except redis.exceptions.TimeoutError:
        _refused_until = time.monotonic() + REFUSE_SECONDS
        raise


def _is_from_wrong_server(reply: Any) -> bool:
    """Tell whether a reply says that another server is the one to ask, so that its connection is to be given up."""
    if not isinstance(reply, REFUSAL):
        return False
    return isinstance(reply, _WRONG_SERVER) or str(reply).startswith(_WRONG_SERVER_CODES)


def is_replica(role: Any) -> bool:
    """Tell whether this reply to ROLE is that of a replica. An error, as where ROLE is not allowed, tells nothing."""
    return isinstance(role, list) and role[0] != b"master"


class _FromReplica(list[Any]):
    """Replies of a server that says that it is a replica: what was read may be old."""


def _send(commands: list[Command], confirmed: bool) -> list[Any]:
    if not greenlets.on_loop():
        return _own().call(commands, confirmed)
    return greenlets.wait_for(_confirming().call(commands) if confirmed else _shared().call(commands))


class _Own(threading.local):
    """A thread's own connection: a pool's book-keeping costs as much as a whole call without it."""

    def __init__(self) -> None:
        self._pool = pool(redis, socket_timeout=ANSWER_SECONDS)
        self.connection: Any = self._pool.make_connection()
        self._check_at = 0.0

    def call(self, commands: list[Command], confirmed: bool) -> list[Any]:
        """Send the commands, and what confirms them, and return the replies. It connects if there is no connection."""
        now = time.monotonic()
        check = now >= self._check_at
        sent = [ROLE, *commands] if check else commands
        if confirmed:
            sent = [*sent, *_confirmation()]
        try:
            self.connection.connect()  # unless it is; left to itself, it would ask no Sentinel
            self.connection.send_packed_command(self.connection.pack_commands(sent))
            replies = [self._reply() for _ in sent[confirmed:]]
            if confirmed:
                replies.append(self._reply(timeout=ANSWER_SECONDS + _confirm_seconds()))
        except REFUSAL as error:  # as the connection was made
            self.connection.disconnect()
            raise redis.exceptions.ConnectionError(f"no connection: {error}") from error
        except NO_ANSWER:
            self.connection.disconnect()
            raise
        if check:
            self._check_at = now + CHECK_SECONDS
            if is_replica(replies.pop(0)):
                replies = _FromReplica(replies)
        if isinstance(replies, _FromReplica) or any(map(_is_from_wrong_server, replies)):
            self.connection.disconnect()
            self._check_at = 0
        return replies

    def end(self, commands: list[Command]) -> None:
        """Send the last commands to this server, and close the connection: there may be another primary."""
        with suppress(*NO_ANSWER):
            for command in commands:
                self.connection.send_packed_command(self.connection.pack_command(*command))
                self._reply()
        self.connection.disconnect()

    def _reply(self, **how: float) -> Any:
        try:
            return self.connection.read_response(**how)
        except REFUSAL as error:
            return error


@cache
def _own() -> _Own:
    return _Own()


class _Call(NamedTuple):
    """Commands that have been sent, the replies so far, and who waits for all of them."""

    length: int
    replies: list[Any]
    done: asyncio.Future[list[Any]]


class _InterruptedError(redis.exceptions.ConnectionError):
    """The connection was given up for the sake of another call, before this one had waited for long."""


class _Shared:
    """The one connection of an event loop, and the next when that is given up."""

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
    _shared().check_soon()


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
                elif _is_from_wrong_server(reply):
                    self.is_open = False
                if len(call.replies) == call.length:
                    self._unanswered.popleft()
                    if not call.done.done():
                        call.done.set_result(_FromReplica(call.replies) if self._is_replica else call.replies)
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
def _shared() -> _Shared:
    return _Shared()


class _Confirming:
    """The connections of an event loop for calls that are confirmed."""

    def __init__(self) -> None:
        self._calls: list[tuple[list[Command], asyncio.Future[list[Any]]]] = []
        self._idle = [_Confirmed() for _ in range(CONFIRMING_CONNECTIONS)]

    async def call(self, commands: list[Command]) -> list[Any]:
        """Return the replies, and those to `_confirmation`. For what it raises see `_Shared.call`."""
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
        """Send all calls that have come, again and again until none has."""
        while self._calls:
            calls, self._calls = self._calls, []
            try:
                replies = await connection.exchange([command for commands, _ in calls for command in commands])
            except NO_ANSWER as error:
                for _, done in calls:
                    if not done.done():
                        done.set_exception(error)
            else:
                own, confirmation = iter(replies[:-2]), replies[-2:]
                for commands, done in calls:
                    of_call = [*islice(own, len(commands)), *confirmation]
                    if not done.done():
                        done.set_result(of_call)
                if not _is_confirmed(confirmation):  # there may be another primary
                    for one in (connection, *self._idle):
                        await one.close()
        self._idle.append(connection)


class _Confirmed:
    """One of them."""

    def __init__(self) -> None:
        self._connection: Any = None

    async def exchange(self, commands: list[Command]) -> list[Any]:
        """Send commands and `_confirmation`, and return all replies."""
        sent = [*commands, *_confirmation()]
        self._connection = connection = self._connection or await connect()
        try:
            async with asyncio.timeout(ANSWER_SECONDS) as limit:
                await connection.send_packed_command(list(map(hiredis.pack_command, sent)), check_health=False)
                replies: list[Any] = [await self._reply(connection) for _ in sent[1:]]
                limit.reschedule(asyncio.get_running_loop().time() + ANSWER_SECONDS + _confirm_seconds())
                replies.append(await self._reply(connection))
        except (TimeoutError, *NO_ANSWER) as error:
            await self.close()
            if isinstance(error, TimeoutError):
                raise redis.exceptions.TimeoutError("no answer in time") from error
            raise
        if any(map(_is_from_wrong_server, replies)):
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
def _confirming() -> _Confirming:
    return _Confirming()
