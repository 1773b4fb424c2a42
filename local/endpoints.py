"""Every public function in one process: one application, `app`, that goes by the path of a request."""

import logging
import re
from contextvars import ContextVar
from http import HTTPStatus

from flask import Request, Response

from knative_jobs.runtime.logs import Plain
from knative_jobs.runtime.settings import settings
from knative_jobs.server import by_path
from knative_jobs.server.asgi import Application
from knative_jobs.web.answers import problem
from knative_jobs.web.endpoint import refuse_headers
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


def respond(request: Request) -> Response:
    """Have the function answer that has the path. Where no token is asked for, it answers to this machine alone."""
    if refusal := refuse_headers(request):
        return refusal
    host = request.headers.get("Host", "")
    if not _HERE.fullmatch(host) and not settings().api_tokens:
        detail = f"This answers to localhost. To have it answer to {host[:200]!r} too, set API_TOKENS."
        return problem(HTTPStatus.MISDIRECTED_REQUEST, detail)
    if handler := by_path.find(request, _handlers):
        _serving.set(handler.__name__.replace("_", "-"))
    return by_path.answer(request, _handlers)


_log = logging.StreamHandler()
_log.setFormatter(_Formatter())
logging.basicConfig(level=logging.INFO, handlers=[_log])
_handlers = by_path.load(service.source for service in manifests.services() if service.public)
app = Application(respond)
