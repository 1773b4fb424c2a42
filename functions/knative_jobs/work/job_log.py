"""What the work says in each attempt that is under way, until the heartbeat takes it to the store.

It is kept for people: a line that was printed as it is, a record of `logging` with its time, level and logger.
"""

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from knative_jobs.runtime.logs import OUTPUT
from knative_jobs.runtime.settings import settings


class Said(NamedTuple):
    """A part of what an attempt has said."""

    text: bytes
    at: int
    """How many bytes the attempt had said before."""


NOTHING_SAID = Said(b"", 0)
_lock = threading.Lock()
_said: dict[str, Said] = {}
"""What is not in the store yet, by the attempt."""


def begin(job_id: str, attempt: int) -> None:
    """Keep what this attempt says from here on, if anything is to be kept."""
    if settings().job_log_bytes:
        with _lock:
            _said[_key(job_id, attempt)] = NOTHING_SAID


def text_of(record: Mapping[str, Any]) -> str:
    """Return a record of `logging`, as `output.ToWorker` sends it, as text; of a printed line, the line alone.

    Raises:
        KeyError, OSError, OverflowError, TypeError, ValueError: it is no such record.
    """
    message = str(record["message"])
    if record.get("logger") == OUTPUT:
        return message
    when = datetime.fromtimestamp(record["at"], UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
    exception = f"\n{record['exception']}" if record.get("exception") else ""
    return f"{when}Z {record['severity']} {record['logger']}: {message}{exception}"


def add(about: Mapping[str, Any], text: str) -> None:
    """Keep a line, or several.

    Args:
        about: the attempt that says it, in the words of `logs.about`. What another than one under way says is not kept.
        text: the lines, without the end of the last one.
    """
    attempt = _key(about["job_id"], about["attempt"])
    with _lock:
        if so_far := _said.get(attempt):
            _said[attempt] = _last(so_far.text + f"{text}\n".encode(errors="backslashreplace"), so_far.at)


def take(job_id: str, attempt: int) -> Said:
    """Return what was said and is not taken yet."""
    with _lock:
        said = _said.get(_key(job_id, attempt), NOTHING_SAID)
        if said.text:
            _said[_key(job_id, attempt)] = Said(b"", said.at + len(said.text))
    return said


def put_back(job_id: str, attempt: int, said: Said) -> None:
    """Take note that the store does not have what was taken."""
    with _lock:
        if later := _said.get(_key(job_id, attempt)):
            _said[_key(job_id, attempt)] = _last(said.text + later.text, said.at)


def end(job_id: str, attempt: int) -> Said:
    """Return what is left, and keep nothing more of this attempt."""
    with _lock:
        return _said.pop(_key(job_id, attempt), NOTHING_SAID)


def _key(job_id: object, attempt: object) -> str:
    return f"{job_id} {attempt}"


def _last(text: bytes, at: int) -> Said:
    """Return the end of a part, as much as is kept of a log."""
    most = settings().job_log_bytes
    return Said(text[-most:], at + max(0, len(text) - most))
