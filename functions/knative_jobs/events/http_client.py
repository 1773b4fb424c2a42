"""Sending a message over HTTP/1.1, on an event loop, over connections that are kept. The only module that knows
httptools.

On an idle connection a message is out before its sender does anything else. A client that works in a thread, or has its
turn on the loop first, adds a good part of a millisecond to the way of each job.
"""

import asyncio
import re
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, cast
from urllib.parse import SplitResult, urlsplit

TAKE_SECONDS = 2
"""How long a server may take to accept a connection, and then to take a message."""
CLOSED = "the server closed the connection without an answer"
_ILLEGAL = re.compile(r"[\r\n\0]")


_Server = tuple[asyncio.AbstractEventLoop, str, str]
"""What a connection leads from and to: a loop, a scheme, a host with its port."""


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
    message = _message(to, headers, body)
    connection = _take_idle(_server(to))
    if connection:
        connection.send(message)
    return _exchange(connection, to, message, answer_s)


def _message(to: SplitResult, headers: Mapping[str, str], body: bytes) -> bytes:
    target = (to.path or "/") + (f"?{to.query}" if to.query else "")
    own = {"Host": to.netloc.rpartition("@")[2], "Content-Length": str(len(body))}
    lines = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in (own | {**headers}).items())]
    if any(map(_ILLEGAL.search, lines)):
        raise ValueError(f"a header cannot be sent: one of {', '.join(headers)}")
    return "\r\n".join([*lines, "", ""]).encode(errors="surrogateescape") + body


class _Connection(asyncio.Protocol):
    """A connection, for one message at a time. Its methods on_... are for the parser of answers to call."""

    def __init__(self, server: _Server) -> None:
        """Be idle whenever an answer has come and another message may follow to this server."""
        import httptools  # here, so that no cold start waits for it

        self._server = server
        self._parser = httptools.HttpResponseParser(self)
        self._not_http = (httptools.HttpParserError, httptools.HttpParserUpgrade)
        self._taken = asyncio.Event()
        self._taken.set()
        self._answer: asyncio.Future[Answer] | None = None
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._until_eof = False

    def send(self, message: bytes) -> None:
        """Send a message. If it cannot be, that is its answer."""
        self._answer = asyncio.get_running_loop().create_future()
        if self._transport.is_closing():
            self._end(CLOSED)
        else:
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
            self._answer.cancel()
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
        try:
            self._parser.feed_data(data)
        except self._not_http as error:
            self._end(f"the answer is no HTTP/1.1: {error}")

    def eof_received(self) -> None:
        if self._until_eof:
            self.on_message_complete()
        self._end(CLOSED)

    def connection_lost(self, _: Exception | None) -> None:
        self._end(CLOSED)
        self._taken.set()

    def on_message_begin(self) -> None:
        self._headers, self._body = {}, bytearray()
        if self._answer is None or self._answer.done():
            self._end("nobody has asked")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode(errors="surrogateescape")

    def on_headers_complete(self) -> None:
        self._until_eof = not {"content-length", "transfer-encoding"} & self._headers.keys()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 or self._answer is None or self._answer.done():
            return
        if self._parser.should_keep_alive():
            _idle.setdefault(self._server, []).append(self)
        else:
            self._transport.close()
        self._answer.set_result(Answer(status, self._headers, bytes(self._body)))

    def _end(self, why: str) -> None:
        _leave_idle(self._server, self)
        self._transport.abort()
        if self._answer and not self._answer.done():
            self._answer.set_exception(ConnectionResetError(why))


async def _exchange(kept: _Connection | None, to: SplitResult, message: bytes, answer_s: float) -> Answer:
    if kept:
        with suppress(ConnectionError):  # the server has closed it while the message was on its way
            return await kept.answer(answer_s)
    loop = asyncio.get_running_loop()
    host, tls = to.hostname or "", to.scheme == "https"
    server = _server(to)
    async with asyncio.timeout(TAKE_SECONDS):
        _, connection = await loop.create_connection(
            lambda: _Connection(server), host, to.port or (443 if tls else 80), ssl=tls or None
        )
    connection.send(message)
    return await connection.answer(answer_s)


_idle: dict[_Server, list[_Connection]] = {}
"""The connections that no message is using. A server to which there is none is not in it."""


def _server(to: SplitResult) -> _Server:
    return asyncio.get_running_loop(), to.scheme, to.netloc


def _take_idle(server: _Server) -> _Connection | None:
    """Return a connection that no message is using, if there is one. It is not idle any more."""
    if server not in _idle:
        return None
    connection = _idle[server][-1]
    _leave_idle(server, connection)
    return connection


def _leave_idle(server: _Server, connection: _Connection) -> None:
    connections = _idle.get(server, [])
    if connection in connections:
        connections.remove(connection)
        if not connections:
            del _idle[server]
