"""Links to our routes. This module alone decides where they lead: in `Location`, in `Link`, in the OpenAPI document.

A cluster gives each Service a host of its own, so a job that is submitted at `jobs.NAMESPACE.DOMAIN` is asked for at
`jobs-status.NAMESPACE.DOMAIN`. Elsewhere one address has all routes: the one that was asked for, or PUBLIC_URL.
"""

import re
from functools import lru_cache

from flask import Request

from knative_jobs.runtime.settings import settings

ALL_HERE = "knative_jobs.all_here"
"""A key in the environ of a request. It is there when this process answers all routes, so that they have one host."""
_OTHER_NAMES = {"job_status": "jobs-status", "docs": "openapi"}
"""The Services of the routes whose name is another than the Service's, by the first part of the route."""
_LABEL = re.compile(r"[^.:]*")
_PROTO = re.compile(r"proto=\"?(https?)\b", re.IGNORECASE)


def to(request: Request, route: str, query: str = "") -> str:
    """Return the link to a route, for the client that has sent a request. It is absolute where the host is known."""
    service = "" if ALL_HERE in request.environ else service_of(route)
    address = _address(_scheme(request), request.environ.get("HTTP_HOST", ""), service)
    return f"{address}{route}?{query}" if query else address + route


def service_of(route: str) -> str:
    """Return the name of the Service that answers a route."""
    name = re.split(r"\W", route, maxsplit=2)[1]
    return _OTHER_NAMES.get(name) or name.replace("_", "-")


@lru_cache(maxsize=256)
def _address(scheme: str, host: str, service: str) -> str:
    """Return where a Service is. An empty one is where the request came to."""
    public, own = settings().public_url.rstrip("/"), settings().k_service
    if public or not host:
        return public
    label = _LABEL.match(host)[0]  # type: ignore[index]
    if service and own and label.lower() == own:
        host = service + host[len(label) :]
    return f"{scheme}://{host}"


def _scheme(request: Request) -> str:
    """Return the scheme that the client used: what the proxy nearest to it says, where a proxy is trusted."""
    environ = request.environ
    if settings().trust_proxy:
        said = _PROTO.search(environ.get("HTTP_FORWARDED", "").partition(",")[0])
        scheme = said[1] if said else environ.get("HTTP_X_FORWARDED_PROTO", "").partition(",")[0].strip()
        if scheme.lower() in ("http", "https"):
            return str(scheme.lower())
    return str(environ["wsgi.url_scheme"])
