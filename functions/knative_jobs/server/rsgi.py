"""Serving functions with granian's event loop: see `greenlets`.

A function that functions-framework has loaded takes a Flask request and returns a Flask response. Here it gets them
straight from the server: Flask's own way there, with its routing, sessions and signals, takes longer than all the rest.
https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md
"""

import asyncio
import io
import itertools
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from flask import Request, Response
from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]

from knative_jobs.runtime import greenlets, shutdown
from knative_jobs.web.endpoint import MAX_BODY_BYTES, MAX_DISCARDED_BYTES

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


THREADS = 4
"""For functions that block. More would wait for one interpreter, and for each other."""
MAX_IN_MEMORY = 1024 * 1024
"""So many bytes of a body without a length are held; a longer one goes over a file."""
OPENED_SECONDS = 10
"""By then the server has opened that file."""


Respond = Callable[[Request], Response]


class Application:
    """Serves one function over RSGI, or several."""

    def __init__(self, respond: Respond, blocking: bool = False) -> None:
        """Answer each request with this; when it may block, in a thread, and the answer goes out as a whole."""
        self._respond = respond
        self._threads = ThreadPoolExecutor(THREADS, "request") if blocking else None

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called once, before the first request."""
        shutdown.handle()

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called once, after the last request."""
        greenlets.finish(loop)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer one request over WSGI, in a thread of the server's: the shortest way to a function that blocks."""
        return self._respond(Request(environ))(environ, start_response)

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer one request."""
        if scope.proto != "http":
            return
        coming = _body(scope, protocol)
        environ = _environ(scope)  # meanwhile
        body = await coming
        environ |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}  # whole, however it came
        request = Request(environ)
        if self._threads:
            loop = asyncio.get_running_loop()
            response = await loop.run_in_executor(self._threads, self._respond, request)
            await greenlets.run(_send, response, request, protocol)
        else:
            await greenlets.run(self._answer, request, protocol)

    def _answer(self, request: Request, protocol: Any) -> None:
        _send(self._respond(request), request, protocol)


def _send(response: Response, request: Request, protocol: Any) -> None:
    chunks, _, headers = response.get_wsgi_response(request.environ)
    try:
        if response.mimetype == "text/event-stream" and request.method != "HEAD":
            transport = protocol.response_stream(response.status_code, headers)
            with suppress(ProtocolClosed):  # the client has gone
                for chunk in chunks:
                    greenlets.wait_for(transport.send_bytes(chunk))
            return
        held, rest = _beginning(iter(chunks))
        if rest is None:
            protocol.response_bytes(response.status_code, headers, held)
        else:
            protocol.response_file(response.status_code, headers, _file_of(itertools.chain([held], rest)))
    finally:
        response.close()


def _beginning(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes] | None]:
    """Return MAX_IN_MEMORY of a body, or a bit more, and the rest of it; None: that was all."""
    held, size = [], 0
    for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        if size > MAX_IN_MEMORY:
            return b"".join(held), chunks
    return b"".join(held), None


def _file_of(chunks: Iterable[bytes]) -> str:
    """Return a file with what is long. The server sends that as fast as the client takes it; a stream it would keep."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - it has no name, so nothing of it stays whenever this process ends
    file.writelines(chunks)
    file.seek(0)
    asyncio.get_running_loop().call_later(OPENED_SECONDS, file.close)
    return f"/dev/fd/{file.fileno()}"


def _body(scope: Any, protocol: Any) -> Awaitable[bytes]:
    """Return what comes to the body, or to so much of it as shows that it is too long. The server reads it from now on.

    The rest of a long one is read, within reason: a proxy that is still sending takes an answer for a broken one.
    """
    length = scope.headers.get("content-length")
    if length is None and "transfer-encoding" not in scope.headers and scope.http_version.startswith("1"):
        return _nothing()
    if length and int(length) <= MAX_BODY_BYTES:
        whole: Awaitable[bytes] = protocol()
        return whole
    return _beginning_of(protocol)


async def _nothing() -> bytes:
    return b""


async def _beginning_of(protocol: Any) -> bytes:
    kept, size = [], 0
    async for chunk in protocol:
        if size <= MAX_BODY_BYTES:
            kept.append(chunk)
        size += len(chunk)
        if size > MAX_DISCARDED_BYTES:
            break
    return b"".join(kept)[: MAX_BODY_BYTES + 1]


def _environ(scope: Any) -> "WSGIEnvironment":
    """Return the request as PEP 3333 describes it, but for its body."""
    host, _, port = scope.server.rpartition(":")
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": scope.path.encode().decode("latin-1"),  # as PEP 3333 has text: bytes, each a character
        "QUERY_STRING": scope.query_string.encode().decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "REMOTE_ADDR": scope.client.rpartition(":")[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if scope.authority:
        environ["HTTP_HOST"] = scope.authority
    for name, value in scope.headers.items():
        if "_" not in name:  # it would pass for the same name with a dash
            key = f"HTTP_{name.upper().replace('-', '_')}"
            environ[key] = f"{environ[key]},{value}" if key in environ and key != "HTTP_HOST" else value
    environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE", "")
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    return environ
