"""HTTP answers. The one place where an error becomes a problem document (RFC 9457)."""

import functools
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from http import HTTPMethod, HTTPStatus
from typing import Any, Protocol, cast

from flask import Request, Response
from werkzeug.datastructures import Headers
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from knative_jobs.runtime import errors, tracing
from knative_jobs.runtime.logs import about
from knative_jobs.runtime.settings import settings
from knative_jobs.web import auth, cors
from knative_jobs.web.headers import check_headers

MAX_BODY_BYTES = 1024 * 1024
MAX_DISCARDED_BYTES = 16 * MAX_BODY_BYTES
RETRY_AFTER_SECONDS = "1"
HEALTH = ("/health/readiness", "/health/liveness")
"""Answered by every function once it is loaded; the paths are those of Knative's `func`."""

_STATUS_OF = {
    errors.InvalidError: HTTPStatus.BAD_REQUEST,
    errors.NotFoundError: HTTPStatus.NOT_FOUND,
    errors.ConflictError: HTTPStatus.CONFLICT,
    errors.GoneError: HTTPStatus.GONE,
    errors.KeyReusedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.QueueFullError: HTTPStatus.TOO_MANY_REQUESTS,
    errors.UnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.UnconfirmedError: HTTPStatus.SERVICE_UNAVAILABLE,
}
_METHODS = set(HTTPMethod)
_TRY_AGAIN = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
_log = logging.getLogger("knative_jobs")


class Handler(Protocol):
    """A function that functions-framework can serve, with the paths it answers besides `/`."""

    __name__: str
    routes: tuple[str, ...]
    pages: tuple[str, ...]

    def __call__(self, request: Request) -> Response: ...


def endpoint(
    method: str, *routes: str, pages: Iterable[str] = ()
) -> Callable[[Callable[[Request], Response]], Handler]:
    """Make a handler answer one method on `/` and on `routes`, and turn every error into a problem document.

    A handler with routes is public: where API_TOKENS names callers, it asks for a token, and `request.remote_user` is
    the name of it. It shares a thread with all others (see `greenlets`). One without is the Broker's to call, and may
    block.

    For `pages`, further paths, no token is needed: what is there is the same for everybody and has no data in it. Such
    pages may call what is public across origins; what the page of another site sends with POST is refused.

    Raises:
        InvalidSettingError: API_TOKENS cannot be used.
    """
    methods = (method, "HEAD") if method == "GET" else (method,)
    pages = tuple(pages)
    paths = {"/", *routes, *pages}
    callers = auth.callers(settings().api_tokens) if routes else ()
    tracing.prepare()
    scope = auth.READ if method == "GET" else auth.WRITE

    def decorate(handler: Callable[[Request], Response]) -> Handler:
        def respond(request: Request) -> Response:
            try:
                request.max_content_length = MAX_BODY_BYTES + 1  # werkzeug cuts a chunked body here
                size = len(request.get_data())  # it is kept, for the handler and for functions-framework
                if size > MAX_BODY_BYTES:
                    raise RequestEntityTooLarge
                if size < int(request.environ.get("CONTENT_LENGTH") or 0):
                    return cut_off()
                path = request.path.rstrip("/") or "/"
                if path not in paths:
                    if request.path in HEALTH:
                        return Response()
                    return no_such_route(request.path, [f"{method} {route}" for route in routes or ("/",)])
                if callers and path not in pages:
                    caller = auth.identify(callers, request.headers.get("Authorization", ""), scope)
                    request.environ["REMOTE_USER"] = caller.name
                if request.method not in methods:
                    detail = f"{request.method} is not possible here; use {method}."
                    return problem(HTTPStatus.METHOD_NOT_ALLOWED, detail, {"Allow": ", ".join(methods)})
                encoding = request.environ.get("HTTP_CONTENT_ENCODING", "identity")
                if method == "POST" and encoding.lower() != "identity":
                    return _encoded(encoding)
                return handler(request)
            except auth.RefusedError as error:
                return problem(error.status, str(error), {"WWW-Authenticate": error.challenge})
            except errors.JobError as error:
                return _problem_of(error, request)
            except RequestEntityTooLarge:
                detail = f"The body is over {MAX_BODY_BYTES} bytes; send fewer or smaller jobs."
                refusal = problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
                # As a stream, or functions-framework would read the body before it lets the answer go.
                refusal.response = refusal.iter_encoded()
                _discard(request)
                return refusal
            except ClientDisconnected:
                return cut_off()
            except Exception:
                _log.exception("%s %s failed", request.method, request.path, extra=_about(request))
                return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The function failed; its log says why.")

        @functools.wraps(handler)
        def answer_request(request: Request) -> Response:
            if refusal := refuse_headers(request):
                return refusal
            origin = request.environ.get("HTTP_ORIGIN") if routes else None
            return respond(request) if origin is None else _answer_page(request, origin, methods, respond)

        traced = routes and tracing.enabled()
        served = cast(Handler, _traced(answer_request, method, routes[0]) if traced else answer_request)
        served.routes = routes
        served.pages = pages
        return served

    return decorate


def answer(
    content: bytes | str | Iterable[bytes],
    status: int = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer with JSON that is already text."""
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, bytes):
        content += b"\n"
    return _Answer(content, status, headers, content_type="application/json")


def problem(status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with a problem document."""
    text = json.dumps({"type": "about:blank", "title": status.phrase, "status": status, "detail": detail})
    return Response(text + "\n", status, headers, content_type="application/problem+json")


def refuse_headers(request: Request) -> Response | None:
    """Answer a request that has a header which cannot be read. None: all can be."""
    try:
        check_headers(request)
    except errors.InvalidError as error:
        return problem(HTTPStatus.BAD_REQUEST, str(error))
    return None


def cut_off() -> Response:
    """Answer that a part of the body is missing. A client that hung up does not see it; one that half-closed does."""
    return problem(HTTPStatus.BAD_REQUEST, "The body ended too soon; send all of it.")


def no_such_route(path: str, routes: Iterable[str]) -> Response:
    """Answer that there is nothing at `path`, and what there is."""
    return problem(HTTPStatus.NOT_FOUND, f"Nothing is at {path[:200]}. There is: {', '.join(routes)}.")


def _traced(handler: Callable[[Request], Response], method: str, route: str) -> Callable[[Request], Response]:
    """Let each request be a span, until the answer begins. What it leads to has this span for its parent."""

    @functools.wraps(handler)
    def answer_request(request: Request) -> Response:
        if request.path in HEALTH:
            return handler(request)
        attributes = {
            "http.request.method": request.method if request.method in _METHODS else "_OTHER",
            "http.route": route,
            "url.path": request.path[:200],
            "url.scheme": request.scheme,
        }
        parent = tracing.parse(request.headers.get("traceparent", ""))
        with tracing.span(f"{method} {route}", "SERVER", parent, attributes) as span:
            request.environ["HTTP_TRACEPARENT"] = span.traceparent
            response = handler(request)
            span.note("http.response.status_code", response.status_code)
            if response.status_code >= 500:
                span.went_wrong(str(response.status_code))
            return response

    return answer_request


def _about(request: Request) -> dict[str, Any]:
    return about(traceparent=tracing.parse(request.headers.get("traceparent", "")))


def _answer_page(
    request: Request, origin: str, methods: Iterable[str], respond: Callable[[Request], Response]
) -> Response:
    """Answer what a page in a browser sent, so that ours can read it, and others cannot change anything."""
    if cors.is_sibling(origin, request.host):
        preflight = request.method == "OPTIONS"
        response = Response(status=HTTPStatus.NO_CONTENT) if preflight else respond(request)
        response.headers.update(cors.headers(origin, ", ".join(methods), preflight))
        return response
    if request.method == "POST" and cors.is_foreign(origin, request.host, request.headers.get("Sec-Fetch-Site", "")):
        return problem(HTTPStatus.FORBIDDEN, "This was sent by the page of another site, which may not do that.")
    return respond(request)


def _encoded(encoding: str) -> Response:
    """Answer that a body is read as it is: https://www.rfc-editor.org/rfc/rfc9110#field.accept-encoding."""
    detail = f"A body is read as it is, not as {encoding[:40]!r}; send it without Content-Encoding."
    return problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, {"Accept-Encoding": "identity"})


def _discard(request: Request) -> None:
    """Read what is left of a body, within reason: a proxy that is still sending takes an answer for a broken one."""
    left = MAX_DISCARDED_BYTES
    while left > 0 and (chunk := request.environ["wsgi.input"].read(65536)):
        left -= len(chunk)


class _Answer(Response):
    """A response whose headers are already as they go out: werkzeug's care for them costs more than the rest of it."""

    def get_wsgi_headers(self, environ: Any) -> Headers:
        if isinstance(self.response, list):
            self.headers.add("Content-Length", str(sum(map(len, self.response))))
        return self.headers


def _problem_of(error: errors.JobError, request: Request) -> Response:
    status = _STATUS_OF[type(error)]
    if isinstance(error, errors.UnavailableError | errors.UnconfirmedError):
        _log.warning("%s %s", error, error.__cause__ or "", extra=_about(request))
    return problem(status, str(error), {"Retry-After": RETRY_AFTER_SECONDS} if status in _TRY_AGAIN else None)
