"""The answers that are lists of jobs."""

import itertools
from collections.abc import Iterator
from urllib.parse import urlencode

from flask import Request, Response

from knative_jobs.runtime.errors import InvalidError
from knative_jobs.runtime.job_status import Status
from knative_jobs.store import state
from knative_jobs.web import filters, links
from knative_jobs.web.answers import answer
from knative_jobs.web.query import whole_number

MAX_LIMIT = 1000
INCOMPLETE = "incomplete"
"""The list of the jobs that are submitted or in progress."""
LIST_QUERY = (*filters.QUERY, "limit", "cursor")
"""The parameters of `answer_list`."""
PAGE_QUERY = ("status", *LIST_QUERY)
"""The parameters of `answer_page`."""
_READINGS = 10
"""So often Redis is asked for one page while it finds none of the jobs, each time a thousand jobs further on."""
_ROUTES = {
    Status.COMPLETE: "/completed_jobs",
    INCOMPLETE: "/incomplete_jobs",
    Status.IN_PROGRESS: "/inprogress_jobs",
    Status.FAILED: "/failed_jobs",
    Status.CANCELLED: "/cancelled_jobs",
}


def answer_list(request: Request, listing: str) -> Response:
    """Answer with a list, oldest first: whole, or a page of it when the query has `limit` or `cursor`.

    A page is followed by a `Link` header with `rel="next"` (RFC 8288) while there may be more. A whole list is streamed
    in pieces, each of one moment.

    Args:
        request: may have the parameters of LIST_QUERY: `limit` is 1 to MAX_LIMIT, `cursor` from a `Link`.
        listing: a status, or INCOMPLETE.

    Raises:
        InvalidError: one of these is not what it must be.
    """
    asked = filters.asked_for(request, listing)
    if "limit" in request.args or "cursor" in request.args:
        return _page(request, _ROUTES[listing], asked)
    pieces = state.pages(asked)
    first = next(pieces)  # while an error can still be answered as one
    return answer(_array(itertools.chain([first], pieces)))


def answer_page(request: Request, route: str) -> Response:
    """Answer with a page of the jobs, newest first, and a `Link` to the next.

    Args:
        request: may have the parameters of PAGE_QUERY.
        route: what the link leads to.

    Raises:
        InvalidError: one of the parameters is not what it must be.
    """
    status = request.args.get("status", "")
    if status and status not in tuple(Status):
        raise InvalidError(f"status is one of: {', '.join(Status)}; not {status[:40]!r}.")
    return _page(request, route, filters.asked_for(request, status, "newest"))


def _page(request: Request, route: str, asked: state.Filter) -> Response:
    limit, after = _limit(request), _cursor(request)
    for _ in range(_READINGS):
        records, after = state.page(asked, after, limit)
        if records or not after:
            break
    query = request.args.to_dict() | {"limit": str(limit), "cursor": after}
    following = f'<{links.to(request, route, urlencode(query))}>; rel="next"'
    return answer(b"[%b]" % records, headers={"Link": following} if after else None)


def _array(pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield b"["
    separator = b""
    for piece in filter(None, pieces):
        yield separator + piece
        separator = b","
    yield b"]\n"


def _limit(request: Request) -> int:
    text = request.args.get("limit", "100")
    limit = whole_number(text)
    if not limit or limit > MAX_LIMIT:
        raise InvalidError(f"limit is a whole number from 1 to {MAX_LIMIT}, not {text[:40]!r}.")
    return limit


def _cursor(request: Request) -> str:
    text = request.args.get("cursor", "")
    if text and not (text.isascii() and len(text) <= 20 and text.replace(".", "", 1).isdigit()):
        raise InvalidError(f"cursor comes from a Link header; {text[:40]!r} does not.")
    return text
