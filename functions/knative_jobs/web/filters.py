"""What a query says about the jobs that are asked for: their kind, who submitted them, their key, and when."""

import re

from flask import Request

from knative_jobs.runtime import job_key, job_kind, rfc3339
from knative_jobs.runtime.errors import InvalidError
from knative_jobs.runtime.settings import settings
from knative_jobs.store.state import Filter
from knative_jobs.web.query import number

QUERY = ("kind", "submitted-by", "key", "from", "to", "order")
_OFFSET = re.compile(r" (\d\d:\d\d)$")
"""The offset of a time whose `+` is not encoded: a query has it as a space."""
_MAX_SECONDS = 9999999999
"""The last time that Redis compares as text: in the year 2286."""


def asked_for(request: Request, listing: str = "", order: str = "oldest") -> Filter:
    """Return which jobs the query asks for. A parameter that is empty or left out leaves them all.

    Args:
        request: may have the parameters of QUERY.
        listing: a status, or `incomplete`; empty: all jobs.
        order: which come first where the query does not say: `oldest` or `newest`.

    Raises:
        InvalidError: one of the parameters is not what it must be.
    """
    submitted_by, key = (_word(request, name) for name in ("submitted-by", "key"))
    order = request.args.get("order") or order
    if order not in ("newest", "oldest"):
        raise InvalidError(f"order is newest or oldest, which says what comes first; not {order[:40]!r}.")
    return Filter(listing, chosen_kind(request), submitted_by, key, _time(request, "from"), _time(request, "to"), order)


def is_narrowed(request: Request) -> bool:
    """Tell whether the query asks for some jobs, and not for all."""
    return any(request.args.get(name) for name in (*QUERY[:-1], "status"))


def chosen_kind(request: Request) -> str:
    """Return the kind that the query asks for; empty: all.

    Raises:
        InvalidError: there is no such kind.
    """
    kind = request.args.get("kind", "")
    if kind and kind not in (*settings().job_kinds, job_kind.BULK):
        raise InvalidError(f"kind is one of: {', '.join(settings().job_kinds)}; not {kind[:40]!r}.")
    return kind


def _word(request: Request, name: str) -> str:
    text = request.args.get(name, "")
    if text and not job_key.is_key(text):
        raise InvalidError(f"{name} is {job_key.WHAT}; this is not.")
    return text


def _time(request: Request, name: str) -> str:
    """Return the time that a parameter names, in seconds since the epoch with microseconds; empty: none."""
    text = request.args.get(name, "")
    if not text:
        return ""
    at = number(text)
    try:
        at = max(0, rfc3339.seconds(_OFFSET.sub(r"+\1", text))) if at is None else at
    except ValueError:
        at = -1
    if at < 0:
        what = "a time: seconds since the epoch, or as 2026-11-26T10:00:00Z"
        raise InvalidError(f"{name} is {what}; not {text[:40]!r}.")
    return f"{min(at, _MAX_SECONDS):.6f}"
