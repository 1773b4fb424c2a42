"""Every public function in one process: one WSGI callable, `app`, that goes by the path."""

import logging
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

import functions_framework

from knative_jobs.http import no_such_route
from knative_jobs.logs import Plain
from local import manifests
from local.log import MARK

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_serving = threading.local()


class _Formatter(Plain):
    """Puts the name of the function that this thread serves in front of each line."""

    def format(self, record: logging.LogRecord) -> str:
        front = f"{MARK}{getattr(_serving, 'name', 'endpoints')}{MARK}"
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


def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """Let the function that has the path answer."""
    path = environ["PATH_INFO"]
    found = _apps.get(path) or _apps.get(path.rstrip("/"))
    if not found:
        return no_such_route(path, _apps)(environ, start_response)
    _serving.name, function = found
    return function(environ, start_response)


_handler = logging.StreamHandler()
_handler.setFormatter(_Formatter())
logging.basicConfig(level=logging.INFO, handlers=[_handler])
_apps = load(manifests.services())
