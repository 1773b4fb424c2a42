"""What makes a handler an endpoint: the steps that a request takes before it, and what becomes of its errors."""

import functools
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from http import HTTPMethod, HTTPStatus
from typing import NamedTuple, Protocol, cast

from flask import Request, Response
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from knative_jobs.runtime import errors, tracing
from knative_jobs.runtime.settings import settings
from knative_jobs.web import auth, cors
from knative_jobs.web.answers import about_request, cut_off, no_such_route, problem, problem_of
from knative_jobs.web.headers import check_headers
from knative_jobs.web.query import check_query

MAX_BODY_BYTES = 1024 * 1024
MAX_DISCARDED_BYTES = 16 * MAX_BODY_BYTES
HEALTH = ("/health/readiness", "/health/liveness")
"""Answered by every function once it is loaded; the paths are those of Knative's `func`."""

_METHODS = set(HTTPMethod)
_log = logging.getLogger("knative_jobs")


class Handler(Protocol):
    """A function that functions-framework can serve, with the paths it answers besides `/`."""

    __name__: str
    routes: tuple[str, ...]
    pages: tuple[str, ...]

    def __call__(self, request: Request) -> Response: ...


def endpoint(
    methods: str,
    *routes: str,
    query: Collection[str] | Mapping[str, Collection[str]] = (),
    pages: Iterable[str] = (),
) -> Callable[[Callable[[Request], Response]], Handler]:
    """Make a handler answer some methods on `/` and on `routes`, and turn every error into a problem document.

    A handler with routes is public: where API_TOKENS names callers, it asks for a token, and `request.remote_user` is
    the name of it. It shares a thread with all others (see `greenlets`). One without is the Broker's to call, and may
    block. A public one refuses a query that has other parameters than those of `query`, which may differ by route.
    Where it answers both GET and POST, these are for GET, and POST takes none.

    For `pages`, further paths, no token is needed: what is there is the same for everybody and has no data in it. Such
    pages may call what is public across origins; what the page of another site sends with POST is refused.

    Raises:
        InvalidSettingError: API_TOKENS cannot be used.
    """
    served = _Served(
        methods=tuple(methods.replace("GET", "GET HEAD").split()),
        routes=routes,
        query=query,
        pages=tuple(pages),
        callers=auth.callers(settings().api_tokens) if routes else (),
    )
    tracing.prepare()

    def decorate(handler: Callable[[Request], Response]) -> Handler:
        def respond(request: Request) -> Response:
            try:
                for step in _STEPS:
                    if refusal := step(served, request):
                        return refusal
                return handler(request)
            except Exception as error:
                return _answer_error(error, request)

        @functools.wraps(handler)
        def answer_request(request: Request) -> Response:
            if refusal := refuse_headers(request):
                return refusal
            origin = request.environ.get("HTTP_ORIGIN") if routes else None
            return respond(request) if origin is None else _answer_page(request, origin, served.methods, respond)

        traced = routes and tracing.enabled()
        made = cast(Handler, _traced(answer_request, routes[0]) if traced else answer_request)
        made.routes = routes
        made.pages = served.pages
        return made

    return decorate


class _Served(NamedTuple):
    """What an endpoint answers, and to whom."""

    methods: tuple[str, ...]
    routes: tuple[str, ...]
    query: Collection[str] | Mapping[str, Collection[str]]
    pages: tuple[str, ...]
    callers: tuple[auth.Caller, ...]


def _check_body(_: _Served, request: Request) -> Response | None:
    """Read the body and keep it, for the handler and functions-framework. Refuse one that is too long or cut off."""
    request.max_content_length = MAX_BODY_BYTES + 1  # werkzeug cuts a chunked body here
    size = len(request.get_data())
    if size > MAX_BODY_BYTES:
        raise RequestEntityTooLarge
    return cut_off() if size < int(request.environ.get("CONTENT_LENGTH") or 0) else None


def _check_path(served: _Served, request: Request) -> Response | None:
    """Answer a probe, and a path that is not this endpoint's."""
    path = _path(request)
    if path == "/" or path in served.routes or path in served.pages:
        return None
    if request.path in HEALTH:
        return Response()
    routes, methods = served.routes or ("/",), [method for method in served.methods if method != "HEAD"]
    return no_such_route(request.path, [f"{method} {route}" for route in routes for method in methods])


def _check_caller(served: _Served, request: Request) -> Response | None:
    """Identify the caller by its token, where tokens are asked for. It is then `request.remote_user`."""
    if served.callers and _path(request) not in served.pages:
        method = request.method if request.method in served.methods else served.methods[0]
        scope = auth.READ if method in ("GET", "HEAD") else auth.WRITE
        caller = auth.identify(served.callers, request.headers.get("Authorization", ""), scope)
        request.environ["REMOTE_USER"] = caller.name
    return None


def _check_method(served: _Served, request: Request) -> Response | None:
    if request.method in served.methods:
        return None
    detail = f"{request.method} is not possible here; use {' or '.join(m for m in served.methods if m != 'HEAD')}."
    return problem(HTTPStatus.METHOD_NOT_ALLOWED, detail, {"Allow": ", ".join(served.methods)})


def _check_encoding(_: _Served, request: Request) -> Response | None:
    """Refuse a body that is compressed: https://www.rfc-editor.org/rfc/rfc9110#field.accept-encoding."""
    encoding = request.environ.get("HTTP_CONTENT_ENCODING", "identity")
    if request.method != "POST" or encoding.lower() == "identity":
        return None
    detail = f"A body is read as it is, not as {encoding[:40]!r}; send it without Content-Encoding."
    return problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, {"Accept-Encoding": "identity"})


def _check_query(served: _Served, request: Request) -> Response | None:
    if served.routes and _path(request) not in served.pages:
        is_asked = request.method in ("GET", "HEAD") or "GET" not in served.methods
        known = served.query[_path(request)] if isinstance(served.query, Mapping) else served.query
        check_query(request, known if is_asked else ())
    return None


_STEPS = (_check_body, _check_path, _check_caller, _check_method, _check_encoding, _check_query)
"""What a request meets before the handler, in this order. Each returns the answer to a request that goes no further."""


def _path(request: Request) -> str:
    return request.path.rstrip("/") or "/"


def _answer_error(error: Exception, request: Request) -> Response:
    match error:
        case auth.RefusedError():
            return problem(error.status, str(error), {"WWW-Authenticate": error.challenge})
        case errors.JobError():
            return problem_of(error, request)
        case RequestEntityTooLarge():
            return _too_large(request)
        case ClientDisconnected():
            return cut_off()
    _log.exception("%s %s failed", request.method, request.path, extra=about_request(request))
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The function failed; its log says why.")


def _too_large(request: Request) -> Response:
    refusal = problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is over {MAX_BODY_BYTES} bytes; send fewer or smaller jobs."
    )
    # As a stream, or functions-framework would read the body before it lets the answer go.
    refusal.response = refusal.iter_encoded()
    _discard(request)
    return refusal


def refuse_headers(request: Request) -> Response | None:
    """Answer a request that has a header which cannot be read. None: all can be."""
    try:
        check_headers(request)
    except errors.InvalidError as error:
        return problem(HTTPStatus.BAD_REQUEST, str(error))
    return None


def _traced(handler: Callable[[Request], Response], route: str) -> Callable[[Request], Response]:
    """Let each request be a span, until the answer begins. What it leads to has this span for its parent."""

    @functools.wraps(handler)
    def answer_request(request: Request) -> Response:
        if request.path in HEALTH:
            return handler(request)
        known = request.method in _METHODS
        attributes = {
            "http.request.method": request.method if known else "_OTHER",
            "http.route": route,
            "url.path": request.path[:200],
            "url.scheme": request.scheme,
        }
        parent = tracing.parse(request.headers.get("traceparent", ""))
        with tracing.span(f"{request.method if known else 'HTTP'} {route}", "SERVER", parent, attributes) as span:
            request.environ["HTTP_TRACEPARENT"] = span.traceparent
            response = handler(request)
            span.note("http.response.status_code", response.status_code)
            if response.status_code >= 500:
                span.went_wrong(str(response.status_code))
            return response

    return answer_request


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


def _discard(request: Request) -> None:
    """Read what is left of a body, within reason: a proxy that is still sending takes an answer for a broken one."""
    left = MAX_DISCARDED_BYTES
    while left > 0 and (chunk := request.environ["wsgi.input"].read(65536)):
        left -= len(chunk)
