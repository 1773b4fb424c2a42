"""The answers that are lists of jobs."""

import itertools
from collections.abc import Iterator
from urllib.parse import urlencode

from flask import Request, Response

from knative_jobs.runtime.errors import InvalidError
from knative_jobs.runtime.job_status import Status
from knative_jobs.runtime.settings import settings
from knative_jobs.store import state
from knative_jobs.web import links
from knative_jobs.web.answers import answer

MAX_LIMIT = 1000
INCOMPLETE = "incomplete"
"""The list of the jobs that are submitted or in progress."""
_ROUTES = {
    Status.COMPLETE: "/completed_jobs",
    INCOMPLETE: "/incomplete_jobs",
    Status.IN_PROGRESS: "/inprogress_jobs",
    Status.FAILED: "/failed_jobs",
    Status.CANCELLED: "/cancelled_jobs",
}


def answer_list(request: Request, listing: str) -> Response:
    """Answer with a list, oldest first: whole, or a page of it when the query has `limit` or `cursor`.

    A page is followed by a `Link` header with `rel="next"` (RFC 8288) while there is more. A whole list is streamed in
    pieces, each of one moment.

    Args:
        request: may have `kind`, `limit` (1 to MAX_LIMIT) and `cursor` (from a `Link`).
        listing: a status, or INCOMPLETE.

    Raises:
        InvalidError: one of these is not what it must be.
    """
    kind = chosen_kind(request)
    if "limit" not in request.args and "cursor" not in request.args:
        pieces = state.pages(listing, kind)
        first = next(pieces)  # while an error can still be answered as one
        return answer(_array(itertools.chain([first], pieces)))
    limit, cursor = _limit(request), _cursor(request)
    query: dict[str, str | int] = {"kind": kind} if kind else {}
    query["limit"] = limit
    return _page(request, _ROUTES[listing], query, *state.page(listing, kind, cursor, limit))


def answer_newest(request: Request) -> Response:
    """Answer with a page of the jobs, newest first, and a `Link` to the next.

    Args:
        request: may have `status`, `kind`, `limit` (1 to MAX_LIMIT) and `cursor` (from a `Link`).

    Raises:
        InvalidError: one of these is not what it must be.
    """
    status = request.args.get("status", "")
    if status and status not in tuple(Status):
        raise InvalidError(f"status is one of: {', '.join(Status)}; not {status[:40]!r}.")
    kind, limit, cursor = chosen_kind(request), _limit(request), _cursor(request)
    query: dict[str, str | int] = {"status": status} if status else {}
    query |= {"kind": kind} if kind else {}
    query["limit"] = limit
    return _page(request, "/dashboard/jobs", query, *state.newest(status, kind, cursor, limit))


def chosen_kind(request: Request) -> str:
    """Return the kind that the query asks for; empty: all.

    Raises:
        InvalidError: there is no such kind.
    """
    kind = request.args.get("kind", "")
    if kind and kind not in settings().job_kinds:
        raise InvalidError(f"kind is one of: {', '.join(settings().job_kinds)}; not {kind[:40]!r}.")
    return kind


def _page(request: Request, route: str, query: dict[str, str | int], records: bytes, after: str) -> Response:
    following = links.to(request, route, urlencode(query | {"cursor": after}))
    return answer(b"[%b]" % records, headers={"Link": f'<{following}>; rel="next"'} if after else None)


def _array(pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield b"["
    separator = b""
    for piece in filter(None, pieces):
        yield separator + piece
        separator = b","
    yield b"]\n"


def _limit(request: Request) -> int:
    text = request.args.get("limit", "100")
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= MAX_LIMIT):
        raise InvalidError(f"limit is a whole number from 1 to {MAX_LIMIT}, not {text[:40]!r}.")
    return int(text)


def _cursor(request: Request) -> str:
    text = request.args.get("cursor", "")
    if text and not (text.isascii() and len(text) <= 20 and text.replace(".", "", 1).isdigit()):
        raise InvalidError(f"cursor comes from a Link header; {text[:40]!r} does not.")
    return text
