"""The headers that functions read. One that cannot be read is refused, and not taken for one that is missing."""

import re

from flask import Request

from knative_jobs.runtime.errors import InvalidError

REPEATED = "knative_jobs.repeated"
"""In the environ of a request: the keys of the headers that came more than once, where the server tells."""
_ONE_VALUE = (
    "Authorization",
    "Content-Encoding",
    "Host",
    "Idempotency-Key",
    "Last-Event-ID",
    "Origin",
    "Sec-Fetch-Site",
    "traceparent",
)
_LISTS = ("Accept", "Forwarded", "Prefer", "X-Forwarded-Proto")
"""A header like these may come more than once: https://www.rfc-editor.org/rfc/rfc9110#section-5.3."""
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[\w.~%!$&'()*+;=-]+)(:[0-9]*)?", re.ASCII | re.IGNORECASE)


def _key(name: str) -> str:
    return f"HTTP_{name.upper().replace('-', '_')}"


_NAMES = {_key(name): name for name in _ONE_VALUE + _LISTS}
_SINGLE = frozenset(map(_key, _ONE_VALUE))


def check_headers(request: Request) -> None:
    """Check the headers that functions read.

    Raises:
        InvalidError: one of them is not ASCII, or came twice and has one value; the idempotency key is empty or has a
            tab; or the host is not named as HTTP asks.
    """
    environ = request.environ
    for key in _NAMES.keys() & environ.keys():
        if not environ[key].isascii():
            raise InvalidError(f"{_NAMES[key]} has characters that are not ASCII.")
    for key in environ.get(REPEATED, ()):
        if key in _SINGLE or key.startswith("HTTP_CE_"):
            raise InvalidError(f"{_NAMES.get(key, key[5:].lower().replace('_', '-'))} is there more than once.")
    idempotency_key = environ.get("HTTP_IDEMPOTENCY_KEY", "-")
    if not (idempotency_key and idempotency_key.isprintable()):
        raise InvalidError("Idempotency-Key is empty, or has characters that are not printable ASCII.")
    host = environ.get("HTTP_HOST", "")
    if not _HOST.fullmatch(host) and (host or environ["SERVER_PROTOCOL"] == "HTTP/1.1"):
        raise InvalidError("The header Host is missing, or is not one host.")
