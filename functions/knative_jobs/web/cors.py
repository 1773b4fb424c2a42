"""Which pages of other origins may call: those of our own Services (https://fetch.spec.whatwg.org/#http-cors-protocol).

In a cluster each Service has a host of its own, so the pages of `dashboard` and `openapi` call the others across
origins. They are known by their name: `http://dashboard.NAMESPACE.DOMAIN` is a sibling of `jobs.NAMESPACE.DOMAIN`.
"""

import re

from knative_jobs.runtime.settings import settings

PAGES = ("dashboard", "openapi")
"""The Services that have pages."""
_HEADERS = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer, traceparent"
_EXPOSED = "Idempotency-Replayed, Link, Location, Preference-Applied, Retry-After"
_PREFLIGHT_SECONDS = "600"
_DOMAIN = re.compile(r"[a-z0-9-]+((?:\.[a-z0-9-]+)*\.[a-z][a-z0-9-]*(?::[0-9]+)?)", re.IGNORECASE)


def domain(host: str) -> str:
    """Return what the hosts of all our Services end in, `.NAMESPACE.DOMAIN`; empty for an address or `localhost`."""
    name = _DOMAIN.fullmatch(host)
    return name[1] if name else ""


def is_sibling(origin: str, host: str) -> bool:
    """Return whether the origin is that of a Service with a page, beside the one that was asked as `host`."""
    scheme, _, name = origin.partition("://")
    ours = domain(host)
    return bool(ours) and scheme in ("http", "https") and name in [page + ours for page in PAGES]


def is_foreign(origin: str, host: str, fetch_site: str) -> bool:
    """Return whether a page that is neither on this host, nor behind PUBLIC_URL, nor a sibling's sent the request.

    Over a connection that it trusts, a browser says how page and host are related; otherwise their names are compared
    (https://web.dev/articles/fetch-metadata). Clients that are no browsers send no Origin.

    Args:
        origin: the header Origin.
        host: the header Host.
        fetch_site: the header Sec-Fetch-Site, or empty.
    """
    if is_sibling(origin, host) or origin == "/".join(settings().public_url.lower().split("/")[:3]):
        return False
    return fetch_site not in ("same-origin", "none") if fetch_site else origin.partition("://")[2] != host


def headers(origin: str, methods: str, preflight: bool) -> dict[str, str]:
    """Return the headers that let a page of `origin` read the answer, or before that, ask."""
    allowed = {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
    if not preflight:
        return allowed | {"Access-Control-Expose-Headers": _EXPOSED}
    asking = {"Access-Control-Allow-Methods": methods, "Access-Control-Allow-Headers": _HEADERS}
    return allowed | asking | {"Access-Control-Max-Age": _PREFLIGHT_SECONDS}
