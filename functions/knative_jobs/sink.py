"""Posting to the sink, over connections that are kept. The only module that knows h11.

It runs on an event loop, and on an idle connection a message goes out before its sender does anything else: a client
that works in threads, or is scheduled first, adds a good part of a millisecond to the way of each job.
"""

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from knative_jobs.settings import settings

if TYPE_CHECKING:
    import h11

TAKE_SECONDS = 2
"""How long the sink may take to accept a connection, and then to take a message."""
READ_BYTES = 65536


class NoAnswerError(Exception):
    """The sink has the whole message, and did not answer in time."""


class _Connection(NamedTuple):
    http: "h11.Connection"
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


def post(headers: Mapping[str, str], body: bytes, answer_s: float) -> Coroutine[Any, Any, int]:
    """Send a message to K_SINK, and return what comes to the status of the answer. Call it on a loop.

    Args:
        headers: what the message needs besides Host and Content-Length.
        body: the message.
        answer_s: how long the answer may take, in seconds.

    Raises:
        NoAnswerError: it took longer.
        OSError: there was no connection, or it broke.
        h11.ProtocolError: the answer is not HTTP/1.1, or the headers are not.
    """
    kept = _idle_connection()
    if kept:
        _write(kept, headers, body)
    return _exchange(kept, headers, body, answer_s)


async def _exchange(kept: _Connection | None, headers: Mapping[str, str], body: bytes, answer_s: float) -> int:
    if kept:
        with suppress(ConnectionError):  # the sink has closed it while the message was on its way
            return await _answer(kept, answer_s)
    connection = await _connect()
    _write(connection, headers, body)
    return await _answer(connection, answer_s)


def _write(connection: _Connection, headers: Mapping[str, str], body: bytes) -> None:
    import h11  # here, so that no cold start waits for it

    at = urlsplit(settings().k_sink)
    target = (at.path or "/") + (f"?{at.query}" if at.query else "")
    own = {"Host": at.netloc.rpartition("@")[2], "Content-Length": str(len(body))}
    request = h11.Request(method="POST", target=target, headers=[*own.items(), *headers.items()])
    message = [connection.http.send(event) for event in (request, h11.Data(data=body), h11.EndOfMessage())]
    connection.writer.write(b"".join(filter(None, message)))


async def _answer(connection: _Connection, answer_s: float) -> int:
    import h11

    http, reader, writer = connection
    status = 0
    try:
        async with asyncio.timeout(TAKE_SECONDS):
            await writer.drain()
        try:
            async with asyncio.timeout(answer_s):
                while not isinstance(event := http.next_event(), h11.EndOfMessage):
                    if isinstance(event, h11.Response):
                        status = event.status_code
                    elif event is h11.NEED_DATA:
                        data = await reader.read(READ_BYTES)
                        if not (data or status):
                            raise ConnectionResetError("the sink closed the connection without an answer")
                        http.receive_data(data)
        except TimeoutError as error:
            raise NoAnswerError(f"there was no answer within {answer_s:g} s") from error
    except BaseException:
        writer.close()
        raise
    if http.our_state is http.their_state is h11.DONE:
        http.start_next_cycle()
        _kept(asyncio.get_running_loop()).append(connection)
    else:
        writer.close()
    return status


async def _connect() -> _Connection:
    import h11

    at = urlsplit(settings().k_sink)
    tls = at.scheme == "https"
    async with asyncio.timeout(TAKE_SECONDS):
        reader, writer = await asyncio.open_connection(at.hostname, at.port or (443 if tls else 80), ssl=tls or None)
    writer.transport.set_write_buffer_limits(0)  # `drain` is to wait until all is out
    return _Connection(h11.Connection(h11.CLIENT), reader, writer)


def _idle_connection() -> _Connection | None:
    kept = _kept(asyncio.get_running_loop())
    while kept:
        connection = kept.pop()
        if not (connection.reader.at_eof() or connection.writer.is_closing()):
            return connection
        connection.writer.close()
    return None


@cache
def _kept(loop: asyncio.AbstractEventLoop) -> list[_Connection]:
    """Return the connections of a loop that no message is using."""
    return []
