"""What the query of a request may have, and `job_id` and `wait`, which several endpoints take."""

import re
from collections.abc import Collection

from flask import Request

from knative_jobs.jobs.follow import MAX_WAIT_SECONDS
from knative_jobs.runtime import job_id
from knative_jobs.runtime.errors import InvalidError

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")


def check_query(request: Request, known: Collection[str]) -> None:
    """Refuse a query that has a parameter which nobody reads, or one twice: what was meant by it would not be done.

    Raises:
        InvalidError: it has.
    """
    if not request.query_string:
        return
    if unknown := [name for name in request.args if name not in known]:
        takes = f"This takes: {', '.join(known)}." if known else "This takes none."
        raise InvalidError(f"There is no parameter {ascii(unknown[0])[:40]}. {takes}")
    for name, values in request.args.lists():
        if len(values) > 1:
            raise InvalidError(f"{name} is in the query {len(values)} times; once is enough.")


def named_job(request: Request) -> job_id.JobId:
    """Return the id in `job_id`.

    Raises:
        InvalidError: it is no UUID, or there is none.
    """
    return job_id.parse(request.args.get("job_id"))


def wait_seconds(request: Request) -> float:
    """Return how long the client is willing to wait for the end of the job; 0: not at all.

    Raises:
        InvalidError: `wait` is no number from 0 to MAX_WAIT_SECONDS.
    """
    text = request.args.get("wait", "0")
    wait = number(text)
    if wait is None or not 0 <= wait <= MAX_WAIT_SECONDS:
        raise InvalidError(f"wait is a number of seconds from 0 to {MAX_WAIT_SECONDS}, not {text[:40]!r}.")
    return wait


def flag(request: Request, name: str, meaning: str) -> bool:
    """Return whether a parameter is 1.

    Args:
        request: the request.
        name: of the parameter.
        meaning: what 1 stands for, for errors.

    Raises:
        InvalidError: it is neither 0 nor 1.
    """
    text = request.args.get(name, "0")
    if text not in ("0", "1"):
        raise InvalidError(f"{name} is 0 or 1, {meaning}; not {text[:40]!r}.")
    return text == "1"


def whole_number(text: str) -> int | None:
    """Return the whole number that a text is, of up to 15 digits. None: it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None


def number(text: str) -> float | None:
    """Return the number that a parameter is, as JSON writes one. None: it is none."""
    return float(text) if _NUMBER.fullmatch(text) else None
