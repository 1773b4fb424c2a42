"""What the work says in each attempt that is under way, until the heartbeat takes it to the store.

It is kept for people: a line that was printed as it is, a record of `logging` with its time, level and logger.
"""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from knative_jobs.runtime.settings import settings


class Said(NamedTuple):
    """A part of what an attempt has said."""

    text: bytes
    at: int
    """How many bytes the attempt had said before."""


NOTHING_SAID = Said(b"", 0)
_lock = threading.Lock()
_said: dict[tuple[Any, ...], Said] = {}
"""What is not in the store yet, by the id of the job and the number of the attempt."""


def begin(job_id: str, attempt: int) -> None:
    """Keep what this attempt says from here on, if anything is to be kept."""
    if settings().job_log_bytes:
        with _lock:
            _said[job_id, attempt] = NOTHING_SAID


def add(
    by: Sequence[Any], message: str, severity: str = "", logger: str = "", at: float = 0, exception: str = ""
) -> None:
    """Keep a line that was printed or, where it has a severity, a record of `logging`.

    Args:
        by: the attempt that says it, as `output.Output.attribute` takes it. What none says is not kept.
        message: the line, or the record's message.
        severity: the name of the record's level.
        logger: the name of its logger.
        at: when, in seconds since the epoch.
        exception: its traceback, if it has one.
    """
    attempt = tuple(by[:2])
    if attempt not in _said:
        return
    when = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
    lines = [f"{when}Z {severity} {logger}: {message}" if severity else message, *filter(None, [exception])]
    text = "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace")
    most = settings().job_log_bytes
    with _lock:
        if so_far := _said.get(attempt):
            text = so_far.text + text
            _said[attempt] = Said(text[-most:], so_far.at + max(0, len(text) - most))


def take(job_id: str, attempt: int) -> Said:
    """Return what was said and is not taken yet."""
    with _lock:
        said = _said.get((job_id, attempt), NOTHING_SAID)
        if said.text:
            _said[job_id, attempt] = Said(b"", said.at + len(said.text))
    return said


def put_back(job_id: str, attempt: int, said: Said) -> None:
    """Take note that the store does not have what was taken."""
    with _lock:
        if later := _said.get((job_id, attempt)):
            text = said.text + later.text
            most = settings().job_log_bytes
            _said[job_id, attempt] = Said(text[-most:], said.at + max(0, len(text) - most))


def end(job_id: str, attempt: int) -> Said:
    """Return what is left, and keep nothing more of this attempt."""
    with _lock:
        return _said.pop((job_id, attempt), NOTHING_SAID)
