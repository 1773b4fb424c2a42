"""Every public function in one process: one application, `app`, that goes by the path."""

import logging
import sys
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING

import functions_framework

from knative_jobs.http import no_such_route
from knative_jobs.logs import Plain
from knative_jobs.rsgi import Application
from local import manifests
from local.log import MARK

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_serving = ContextVar("serving", default="endpoints")
"""The name of the function that this request is for."""


class _Formatter(Plain):
    """Puts the name of the function that is served in front of each line."""

    def format(self, record: logging.LogRecord) -> str:
        front = f"{MARK}{_serving.get()}{MARK}"
        return "\n".join(front + line for line in super().format(record).splitlines())


def load(services: Iterable[manifests.Service]) -> "dict[str, tuple[str, WSGIApplication]]":
    """Return, for each route of the public ones among the services, the Service's name and its function."""
    apps = {}
    for service in services:
        if service.public:
            function = functions_framework.create_app(service.target, str(service.source))  # type: ignore[no-untyped-call]
            handler = getattr(sys.modules[service.source.stem], service.target)
            for route in (*getattr(handler, "routes", (f"/{service.target}",)), *getattr(handler, "pages", ())):
                apps[route] = (service.name, function.wsgi_app)
    return apps


def by_path(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """Let the function that has the path answer."""
    path = environ["PATH_INFO"]
    found = _apps.get(path) or _apps.get(path.rstrip("/"))
    if not found:
        return no_such_route(path, _apps)(environ, start_response)
    name, function = found
    _serving.set(name)
    return function(environ, start_response)


_handler = logging.StreamHandler()
_handler.setFormatter(_Formatter())
logging.basicConfig(level=logging.INFO, handlers=[_handler])
_apps = load(manifests.services())
app = Application(by_path)
