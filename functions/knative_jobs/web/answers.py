"""HTTP answers: JSON, and problem documents (RFC 9457) for every error."""

import json
import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from flask import Request, Response
from werkzeug.datastructures import Headers

from knative_jobs.runtime import errors, tracing
from knative_jobs.runtime.logs import about

RETRY_AFTER_SECONDS = "1"
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
_TRY_AGAIN = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
_log = logging.getLogger("knative_jobs")


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


def cut_off() -> Response:
    """Answer that a part of the body is missing. A client that hung up does not see it; one that half-closed does."""
    return problem(HTTPStatus.BAD_REQUEST, "The body ended too soon; send all of it.")


def no_such_route(path: str, routes: Iterable[str]) -> Response:
    """Answer that there is nothing at `path`, and what there is."""
    return problem(HTTPStatus.NOT_FOUND, f"Nothing is at {path[:200]}. There is: {', '.join(routes)}.")


def about_request(request: Request) -> dict[str, Any]:
    """Return the `extra` of what is logged about a request."""
    return about(traceparent=tracing.parse(request.headers.get("traceparent", "")))


class _Answer(Response):
    """A response whose headers are already as they go out: werkzeug's care for them costs more than the rest of it."""

    def get_wsgi_headers(self, environ: Any) -> Headers:
        if isinstance(self.response, list):
            self.headers.add("Content-Length", str(sum(map(len, self.response))))
        return self.headers


def problem_of(error: errors.JobError, request: Request) -> Response:
    """Answer with what an operation has raised."""
    status = _STATUS_OF[type(error)]
    if isinstance(error, errors.UnavailableError | errors.UnconfirmedError):
        _log.warning("%s %s", error, error.__cause__ or "", extra=about_request(request))
    return problem(status, str(error), {"Retry-After": RETRY_AFTER_SECONDS} if status in _TRY_AGAIN else None)
