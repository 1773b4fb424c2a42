"""Serving functions over ASGI, on the server's event loop: see `greenlets`.

A function that functions-framework has loaded takes a Flask request and returns a Flask response. Here it gets them
straight from the server: Flask's own way there, with its routing, sessions and signals, takes longer than all the rest.
https://asgi.readthedocs.io/en/latest/specs/www.html

Not over granian's own RSGI, which drops headers that are not ASCII, and ends a chunked body that was cut off as if it
were whole.
"""

import asyncio
import io
import itertools
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_to_bytes

from flask import Request, Response

from knative_jobs.runtime import greenlets, shutdown
from knative_jobs.web.answers import cut_off
from knative_jobs.web.endpoint import MAX_BODY_BYTES, MAX_DISCARDED_BYTES
from knative_jobs.web.headers import REPEATED

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


THREADS = 4
"""For functions that block. More would wait for one interpreter, and for each other."""
MAX_HELD_BYTES = 1024 * 1024
"""A response without a length is held until it has so many bytes. Then it is streamed; a shorter one gets a length."""


Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Respond = Callable[[Request], Response]


class _CutOffError(Exception):
    """The client hung up, or ended what it sends, within the body."""


class _Answer(NamedTuple):
    """What goes out: `start`, then `end`, or the chunks of a stream."""

    start: Message
    end: Message | None
    stream: Iterator[bytes]
    close: Callable[[], None]


CHUNKED = "HTTP_TRANSFER_ENCODING"


class _Request(Request):
    """A request whose body has come: werkzeug's care for one that has not costs more than the rest of it."""

    def __init__(self, environ: "WSGIEnvironment", body: bytes) -> None:
        super().__init__(environ)
        self._body = body

    def get_data(self, cache: bool = True, as_text: bool = False, parse_form_data: bool = False) -> Any:
        """Return the body."""
        return self._body.decode(errors="replace") if as_text else self._body


class Application:
    """Serves one function, or several."""

    def __init__(self, respond: Respond, blocking: bool = False) -> None:
        """Answer each request with this; when it may block, in a thread."""
        self._respond = respond
        self._threads = ThreadPoolExecutor(THREADS, "request") if blocking else None

    def __call__(self, *call: Any) -> Any:
        """Answer over ASGI (scope, receive, send), or over WSGI (environ, start_response).

        WSGI is the shortest way to a function that blocks: a thread of the server's does all of a request.
        """
        if len(call) == 2:
            return self._respond(Request(call[0]))(*call)
        scope, receive, send = call
        return self._serve(scope, receive, send) if scope["type"] == "http" else _live(scope, receive, send)

    async def _serve(self, scope: Message, receive: Receive, send: Send) -> None:
        coming = None if scope["method"] in ("GET", "HEAD") else receive()  # the server reads it from now on
        environ = _environ(scope)  # meanwhile
        try:
            body = await _body(environ, receive, coming)
        except _CutOffError:
            answer = _answer(cut_off(), environ)
        else:
            environ |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}  # whole, however it came
            environ.pop(CHUNKED, None)
            answer = await self._answered(_Request(environ, body))
        try:
            await send(answer.start)
            if answer.end:
                await send(answer.end)
            else:
                await _stream(answer.stream, receive, send)
        finally:
            answer.close()

    async def _answered(self, request: Request) -> _Answer:
        if self._threads:
            loop = asyncio.get_running_loop()
            response = await loop.run_in_executor(self._threads, self._respond, request)
            return await greenlets.run(_answer, response, request.environ)
        return await greenlets.run(lambda: _answer(self._respond(request), request.environ))


async def _live(scope: Message, receive: Receive, send: Send) -> None:
    """Take part in the life of the server: https://asgi.readthedocs.io/en/latest/specs/lifespan.html."""
    if scope["type"] != "lifespan":
        return
    await receive()
    shutdown.handle()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await greenlets.finish()
    await send({"type": "lifespan.shutdown.complete"})


def _answer(response: Response, environ: "WSGIEnvironment") -> _Answer:
    headers = response.get_wsgi_headers(environ)
    raw = [(_name(name), value.encode("latin-1")) for name, value in headers]
    start = {"type": "http.response.start", "status": response.status_code, "headers": raw}
    if isinstance(response.response, list):
        bare = environ["REQUEST_METHOD"] == "HEAD" or response.status_code in (204, 304)
        body = b"" if bare else b"".join(response.iter_encoded())
        return _Answer(start, {"type": "http.response.body", "body": body}, iter(()), response.close)
    chunks = response.get_app_iter(environ)
    if response.mimetype == "text/event-stream" and environ["REQUEST_METHOD"] != "HEAD":
        return _Answer(start, None, iter(chunks), response.close)
    held, rest = _beginning(iter(chunks))
    if rest is None or environ["REQUEST_METHOD"] == "HEAD":
        return _Answer(start, {"type": "http.response.body", "body": held}, iter(()), response.close)
    return _Answer(start, None, itertools.chain([held], rest), response.close)


async def _stream(chunks: Iterator[bytes], receive: Receive, send: Send) -> None:
    """Send chunks as they come, until the last one or until the client has gone."""
    gone = asyncio.ensure_future(_disconnect(receive))
    coming: asyncio.Future[bytes] | None = None
    try:
        while not gone.done():
            coming = asyncio.ensure_future(greenlets.run(next, chunks, b""))
            await asyncio.wait({gone, coming}, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                chunk = coming.result()
                await send({"type": "http.response.body", "body": chunk, "more_body": bool(chunk)})
                if not chunk:
                    return
    finally:
        for task in (gone, coming):
            if task and not task.done():
                task.cancel()
        if coming:
            await asyncio.wait({coming})


async def _disconnect(receive: Receive) -> None:
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _beginning(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes] | None]:
    """Return MAX_HELD_BYTES of a body, or a bit more, and the rest of it; None: that was all."""
    held, size = [], 0
    for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        if size > MAX_HELD_BYTES:
            return b"".join(held), chunks
    return b"".join(held), None


async def _body(environ: "WSGIEnvironment", receive: Receive, coming: Awaitable[Message] | None) -> bytes:
    """Return the body, or so much of it as shows that it is too long.

    The rest of a long one is read, within reason: a proxy that is still sending takes an answer for a broken one.

    Args:
        environ: of the request.
        receive: reads on.
        coming: what the first `receive` comes to, if that has been called.

    Raises:
        _CutOffError: it ends too soon.
    """
    length = int(environ.get("HTTP_CONTENT_LENGTH") or -1)
    if coming is None and length < 0 and environ["SERVER_PROTOCOL"] != "HTTP/2" and CHUNKED not in environ:
        return b""
    kept, size, more = [], 0, True
    while more and size != length and size <= MAX_DISCARDED_BYTES:
        message = await (coming or receive())
        coming = None
        if message["type"] != "http.request":
            raise _CutOffError
        chunk, more = message["body"], message["more_body"]
        if size <= MAX_BODY_BYTES:
            kept.append(chunk)
        size += len(chunk)
    return b"".join(kept)[: MAX_BODY_BYTES + 1]


def _environ(scope: Message) -> "WSGIEnvironment":
    """Return the request as PEP 3333 describes it, but for its body."""
    host, port = scope["server"]
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),  # as PEP 3333 has text: a character a byte
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": scope["client"][0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    repeated = []
    for name, raw in scope["headers"]:
        key, value = _key(name), raw.decode("latin-1")
        if key in environ:
            repeated.append(key)
            value = f"{environ[key]},{value}"
        environ[key] = value
    environ.pop("", None)
    if repeated:
        environ[REPEATED] = repeated
    environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE", "")
    return environ


@lru_cache(maxsize=256)
def _name(name: str) -> bytes:
    """Return the name of a header as HTTP/2 has it, which HTTP/1 understands."""
    return name.lower().encode("latin-1")


@lru_cache(maxsize=256)
def _key(name: bytes) -> str:
    """Return the key of a header; empty for one that would pass for the same name with a dash."""
    return "" if b"_" in name else f"HTTP_{name.decode('latin-1').upper().replace('-', '_')}"
