"""Every public function in one process: one application, `app`, that goes by the path."""

import logging
import re
import sys
from collections.abc import Iterable
from contextvars import ContextVar
from http import HTTPStatus

import functions_framework
from flask import Request, Response

from knative_jobs.runtime.logs import Plain
from knative_jobs.runtime.settings import settings
from knative_jobs.server.rsgi import Application
from knative_jobs.web.endpoint import Handler, no_such_route, problem
from local import manifests
from local.log import MARK

_HERE = re.compile(r"((([a-z0-9-]+\.)*(localhost|internal)|[0-9.]+|\[[0-9a-f:.]+\])(:[0-9]+)?)?", re.IGNORECASE)
"""A host that no page of the web can have: an address, or a name like `localhost` and `host.docker.internal`. Any
other may be the name of a page, made to point here once that was loaded (DNS rebinding): a browser takes both for one
site.
"""
_serving = ContextVar("serving", default="endpoints")
"""The name of the function that this request is for."""


class _Formatter(Plain):
    """Puts the name of the function that is served in front of each line."""

    def format(self, record: logging.LogRecord) -> str:
        front = f"{MARK}{_serving.get()}{MARK}"
        return "\n".join(front + line for line in super().format(record).splitlines())


def load(services: Iterable[manifests.Service]) -> dict[str, tuple[str, Handler]]:
    """Return, for each path of the public ones among the services, the Service's name and its function."""
    handlers = {}
    for service in services:
        if service.public:
            functions_framework.create_app(service.target, str(service.source))  # type: ignore[no-untyped-call]
            handler: Handler = getattr(sys.modules[service.source.stem], service.target)
            for path in (*handler.routes, *handler.pages):
                handlers[path] = (service.name, handler)
    return handlers


def by_path(request: Request) -> Response:
    """Let the function that has the path answer. Where no token is asked for, that is for this machine alone."""
    host = request.headers.get("Host", "")
    if not _HERE.fullmatch(host) and not settings().api_tokens:
        detail = f"This answers to localhost. To have it answer to {host[:200]!r} too, set API_TOKENS."
        return problem(HTTPStatus.MISDIRECTED_REQUEST, detail)
    found = _handlers.get(request.path) or _handlers.get(request.path.rstrip("/"))
    if not found:
        return no_such_route(request.path, _handlers)
    name, handler = found
    _serving.set(name)
    return handler(request)


_log = logging.StreamHandler()
_log.setFormatter(_Formatter())
logging.basicConfig(level=logging.INFO, handlers=[_log])
_handlers = load(manifests.services())
app = Application(by_path)
