"""Serving a WSGI application, which functions-framework makes of a function, with granian's event loop: see `waiting`.

https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md
"""

import asyncio
import io
import random
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from knative_jobs import shutdown, waiting
from knative_jobs.http import MAX_BODY_BYTES, MAX_DISCARDED_BYTES

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

Headers = list[tuple[str, str]]


THREADS = 4
"""For functions that block. More would wait for one interpreter, and for each other."""


class Application:
    """Serves a WSGI application over RSGI."""

    def __init__(self, wsgi: "WSGIApplication", blocking: bool = False) -> None:
        """Serve this one; when it may block, each request has a thread, and its answer goes out as a whole."""
        self._wsgi = wsgi
        self._threads = ThreadPoolExecutor(THREADS, "request") if blocking else None

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called once, before the first request."""
        shutdown.watch_on_loop()

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer one request."""
        if scope.proto != "http":
            return
        environ = _environ(scope, await _body(scope, protocol))
        if self._threads:
            loop = asyncio.get_running_loop()
            protocol.response_bytes(*await loop.run_in_executor(self._threads, self._whole_answer, environ))
        else:
            await waiting.run(self._answer, environ, protocol)

    def _whole_answer(self, environ: "WSGIEnvironment") -> tuple[int, Headers, bytes]:
        with self._called(environ) as (status, headers, chunks):
            return status, headers, b"".join(chunks)

    def _answer(self, environ: "WSGIEnvironment", protocol: Any) -> None:
        with self._called(environ) as (status, headers, chunks):
            if any(name.lower() == "content-length" for name, _ in headers) or status in (204, 304):
                protocol.response_bytes(status, headers, b"".join(chunks))
                return
            transport = protocol.response_stream(status, headers)
            for chunk in chunks:
                waiting.wait_for(transport.send_bytes(chunk))

    @contextmanager
    def _called(self, environ: "WSGIEnvironment") -> Iterator[tuple[int, Headers, Iterable[bytes]]]:
        """Call the WSGI application. Yield the status, the headers and the body of its answer."""
        begun: list[Any] = []

        def start_response(status: str, headers: Headers, exc_info: object = None, /) -> Any:
            begun[:] = status, headers

        chunks = self._wsgi(environ, start_response)
        try:
            yield int(begun[0][:3]), begun[1], chunks
        finally:
            if hasattr(chunks, "close"):
                chunks.close()


async def _body(scope: Any, protocol: Any) -> bytes:
    """Return the body, or so much of it as shows that it is too long.

    The rest of a long one is read, within reason: a proxy that is still sending takes an answer for a broken one.
    """
    length = scope.headers.get("content-length")
    if length is None and "transfer-encoding" not in scope.headers and scope.http_version.startswith("1"):
        return b""
    if length and int(length) <= MAX_BODY_BYTES:
        whole: bytes = await protocol()
        return whole
    kept, size = [], 0
    async for chunk in protocol:
        if size <= MAX_BODY_BYTES:
            kept.append(chunk)
        size += len(chunk)
        if size > MAX_DISCARDED_BYTES:
            break
    return b"".join(kept)[: MAX_BODY_BYTES + 1]


def _environ(scope: Any, body: bytes) -> "WSGIEnvironment":
    """Return the request as PEP 3333 describes it."""
    host, _, port = scope.server.rpartition(":")
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": scope.path,
        "QUERY_STRING": scope.query_string,
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "REMOTE_ADDR": scope.client.rpartition(":")[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        # functions-framework would make one up of twelve random numbers, which takes as long as a call of Redis.
        "HTTP_FUNCTION_EXECUTION_ID": f"{random.getrandbits(64):016x}",
    }
    if scope.authority:
        environ["HTTP_HOST"] = scope.authority
    for name, value in scope.headers.items():
        if "_" not in name:  # it would pass for the same name with a dash
            key = f"HTTP_{name.upper().replace('-', '_')}"
            environ[key] = f"{environ[key]},{value}" if key in environ and key != "HTTP_HOST" else value
    environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE", "")
    environ["CONTENT_LENGTH"] = str(len(body))  # it is here, however it came
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    return environ
