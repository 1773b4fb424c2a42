"""Sending a message over HTTP/1.1, on an event loop, over connections that are kept. The only module that knows h11.

On an idle connection a message is out before its sender does anything else. A client that works in a thread, or has its
turn on the loop first, adds a good part of a millisecond to the way of each job.
"""

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import SplitResult, urlsplit

if TYPE_CHECKING:
    from h11 import Response

TAKE_SECONDS = 2
"""How long a server may take to accept a connection, and then to take a message."""
CLOSED = "the server closed the connection without an answer"


class Answer(NamedTuple):
    """An HTTP response. The names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoAnswerError(Exception):
    """The server has the whole message, and did not answer in time."""


def post(url: str, headers: Mapping[str, str], body: bytes, answer_s: float) -> Coroutine[Any, Any, Answer]:
    """Send a message, and return what comes to the answer. Call it on a loop.

    Args:
        url: where to, with http: or https:.
        headers: what the message needs besides Host and Content-Length.
        body: the message.
        answer_s: how long the answer may take, in seconds.

    Raises:
        NoAnswerError: it took longer.
        OSError: there was no connection, it broke, or the answer was no HTTP/1.1.
        ValueError: the headers cannot be sent.
    """
    to = urlsplit(url)
    idle = _idle(asyncio.get_running_loop(), to.scheme, to.netloc)
    connection = idle.pop() if idle else None
    if connection:
        connection.send(to, headers, body)
    return _exchange(connection, to, headers, body, answer_s)


class _Connection(asyncio.Protocol):
    """A connection, for one message at a time."""

    def __init__(self, idle: "list[_Connection]") -> None:
        """Join these whenever an answer has come and another message may follow."""
        import h11  # here, so that no cold start waits for it

        self._h11 = h11
        self._http = h11.Connection(h11.CLIENT)
        self._idle = idle
        self._taken = asyncio.Event()
        self._taken.set()
        self._head: Response | None = None
        self._body = bytearray()
        self._answer: asyncio.Future[Answer] | None = None

    def send(self, to: SplitResult, headers: Mapping[str, str], body: bytes) -> None:
        """Send a message.

        Raises:
            ConnectionResetError: the connection is closed.
            ValueError: the headers cannot be sent.
        """
        if self._transport.is_closing():
            raise ConnectionResetError(CLOSED)
        self._head, self._body = None, bytearray()
        self._answer = asyncio.get_running_loop().create_future()
        own = {"Host": to.netloc.rpartition("@")[2], "Content-Length": str(len(body))}
        target = (to.path or "/") + (f"?{to.query}" if to.query else "")
        try:
            given = [
                (name.encode(), value.encode(errors="surrogateescape")) for name, value in (own | {**headers}).items()
            ]
            request = self._h11.Request(method="POST", target=target, headers=given)
            events = (request, self._h11.Data(data=body), self._h11.EndOfMessage())
            message = b"".join(filter(None, map(self._http.send, events)))
        except (self._h11.LocalProtocolError, UnicodeError) as error:
            self._transport.abort()
            raise ValueError(str(error)) from error
        self._transport.write(message)

    async def answer(self, answer_s: float) -> Answer:
        """Wait for the answer to what was sent. For what it raises see `post`."""
        assert self._answer  # noqa: S101
        try:
            async with asyncio.timeout(TAKE_SECONDS):
                await self._taken.wait()
            try:
                async with asyncio.timeout(answer_s):
                    return await self._answer
            except TimeoutError as error:
                raise NoAnswerError(f"there was no answer within {answer_s:g} s") from error
        except BaseException:
            self._transport.abort()
            raise

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.set_write_buffer_limits(0)  # writing goes on when all is out

    def pause_writing(self) -> None:
        self._taken.clear()

    def resume_writing(self) -> None:
        self._taken.set()

    def data_received(self, data: bytes) -> None:
        if self in self._idle:  # nobody has asked
            self._idle.remove(self)
            self._transport.abort()
            return
        try:
            self._http.receive_data(data)
            self._read()
        except self._h11.RemoteProtocolError as error:
            self._fail(str(error))

    def eof_received(self) -> None:
        if self._head:  # it may be the end of the answer
            self.data_received(b"")

    def connection_lost(self, _: Exception | None) -> None:
        if self in self._idle:
            self._idle.remove(self)
        self._fail(CLOSED)
        self._taken.set()

    def _read(self) -> None:
        while True:
            event = self._http.next_event()
            if isinstance(event, self._h11.Response):
                self._head = event
            elif isinstance(event, self._h11.Data):
                self._body += event.data
            elif isinstance(event, self._h11.EndOfMessage):
                return self._finish()
            elif not isinstance(event, self._h11.InformationalResponse):
                return None

    def _finish(self) -> None:
        assert self._head  # noqa: S101
        headers = {name.decode(): value.decode(errors="surrogateescape") for name, value in self._head.headers}
        unasked, _ = self._http.trailing_data
        if self._http.our_state is self._http.their_state is self._h11.DONE and not unasked:
            self._http.start_next_cycle()
            self._idle.append(self)
        else:
            self._transport.close()
        if self._answer and not self._answer.done():
            self._answer.set_result(Answer(self._head.status_code, headers, bytes(self._body)))

    def _fail(self, why: str) -> None:
        self._transport.abort()
        if self._answer and not self._answer.done():
            self._answer.set_exception(ConnectionResetError(why))


async def _exchange(
    kept: _Connection | None, to: SplitResult, headers: Mapping[str, str], body: bytes, answer_s: float
) -> Answer:
    if kept:
        with suppress(ConnectionError):  # the server has closed it while the message was on its way
            return await kept.answer(answer_s)
    loop = asyncio.get_running_loop()
    host, tls = to.hostname or "", to.scheme == "https"
    idle = _idle(loop, to.scheme, to.netloc)
    async with asyncio.timeout(TAKE_SECONDS):
        _, connection = await loop.create_connection(
            lambda: _Connection(idle), host, to.port or (443 if tls else 80), ssl=tls or None
        )
    connection.send(to, headers, body)
    return await connection.answer(answer_s)


@cache
def _idle(loop: asyncio.AbstractEventLoop, scheme: str, netloc: str) -> list[_Connection]:
    """Return the connections of a loop to a server that no message is using."""
    return []
