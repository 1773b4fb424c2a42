"""The answers that are lists of jobs."""

import itertools
from collections.abc import Iterator
from urllib.parse import urlencode

from flask import Request, Response

from knative_jobs import store
from knative_jobs.errors import InvalidError
from knative_jobs.http import answer

MAX_LIMIT = 1000


def answer_list(request: Request, listing: str) -> Response:
    """Answer with a list, oldest first: whole, or a page of it when the query has `limit` or `cursor`.

    A page is followed by a `Link` header with `rel="next"` (RFC 8288) while there is more. A whole list is streamed in
    pieces, each of one moment.

    Args:
        request: may have `limit` (1 to MAX_LIMIT) and `cursor` (from a `Link`).
        listing: a status, or `incomplete`.

    Raises:
        InvalidError: `limit` or `cursor` is not what it must be.
    """
    if "limit" not in request.args and "cursor" not in request.args:
        pieces = store.pages(listing)
        first = next(pieces)  # while an error can still be answered as one
        return answer(_array(itertools.chain([first], pieces)))
    limit, cursor = _limit(request), _cursor(request)
    records, after = store.page(listing, cursor, limit)
    query = urlencode({"limit": limit, "cursor": after})
    return answer(b"[%b]" % records, headers={"Link": f'<{request.path}?{query}>; rel="next"'} if after else None)


def _array(pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield b"["
    separator = b""
    for piece in pieces:
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
