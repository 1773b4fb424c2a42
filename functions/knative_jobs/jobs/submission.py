"""Submitting jobs: from the body of a request to jobs that are saved and announced."""

import hashlib
import json
import uuid
from typing import Any, NamedTuple

from knative_jobs.jobs import announcement
from knative_jobs.runtime import tracing
from knative_jobs.runtime.errors import GoneError, InvalidError, KeyReusedError, QueueFullError, UnavailableError
from knative_jobs.store import state

MAX_BATCH = 1000
MAX_FIELD_BYTES = 4096
MAX_KEY_LENGTH = 255
EXAMPLE = '{"start": "1", "end": "2"}'


class Number(str):
    """A JSON number, as it was written: 1.10 stays 1.10, and no digit of a long one is lost."""

    __slots__ = ()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


_DECODER = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=_refuse_constant)


class NewJob(NamedTuple):
    """A job as it was submitted."""

    id: str
    start: str | Number
    end: str | Number

    def json(self) -> str:
        """Return the public record of a job that has just been submitted."""
        return f'{{"end":{_json(self.end)},"id":"{self.id}","start":{_json(self.start)},"status":"submitted"}}'


class Submitted(NamedTuple):
    """What a submission came to; `replayed` says that an earlier one with the same idempotency key stands for it."""

    jobs: list[NewJob]
    replayed: bool


def parse(body: bytes) -> tuple[list[NewJob], bool]:
    """Read the jobs in a body: one object, or an array of them. Return them and whether it was an array.

    Raises:
        InvalidError: it is not that; the message says where and what.
    """
    try:
        given = _DECODER.decode(body.decode(json.detect_encoding(body)))
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"The body is not JSON ({error}). A job looks like {EXAMPLE}") from error
    if not isinstance(given, list):
        return [_new_job(given, "The body")], False
    if not 1 <= len(given) <= MAX_BATCH:
        raise InvalidError(f"A batch has 1 to {MAX_BATCH} jobs; this one has {len(given)}.")
    return [_new_job(job, f"Job {i} of the batch") for i, job in enumerate(given)], True


def submit(jobs: list[NewJob], idempotency_key: str = "", submitted_by: str = "", traceparent: str = "") -> Submitted:
    """Save the jobs, all or none, and let their events be emitted.

    Args:
        jobs: what to save.
        idempotency_key: the same key with the same jobs gives the jobs that are there. Each caller has keys of its own.
        submitted_by: the name of the caller's token; empty when none was asked for.
        traceparent: the header of this name; one that is not valid counts as none.

    Raises:
        InvalidError: the idempotency key is too long.
        GoneError: the key stands for this submission, and all its jobs have been removed after their retention.
        KeyReusedError: the key stands for another submission.
        QueueFullError: too many jobs wait already.
        UnavailableError: Redis is away, or takes no writes.
    """
    if len(idempotency_key) > MAX_KEY_LENGTH:
        raise InvalidError(f"Idempotency-Key is longer than {MAX_KEY_LENGTH} characters.")
    fields = [(job.id, job.start, job.end, _number_fields(job)) for job in jobs]
    known = ("", "")
    if idempotency_key:
        known = _digest(f"{submitted_by} {idempotency_key}"), _digest(repr([job[1:] for job in fields]))
    traceparent = tracing.parse(traceparent)
    word, *rest = state.submit(fields, *known, submitted_by, traceparent)
    match word:
        case "submitted":
            due_before = int(rest[0]) - len(jobs)
            announcement.announce(((job.id, 1, job.json().encode()) for job in jobs), due_before, traceparent)
            return Submitted(jobs, replayed=False)
        case "replayed":
            return Submitted([job._replace(id=str(known)) for job, known in zip(jobs, rest, strict=True)], True)
        case "gone":
            raise GoneError(
                "The jobs of this Idempotency-Key have ended, and were removed when their retention was over. "
                "To submit them once more, take a new key."
            )
        case "reused":
            raise KeyReusedError("This Idempotency-Key stands for another submission; take a new key for a new one.")
        case "full":
            raise QueueFullError("Too many jobs wait already; submit again later.")
    raise UnavailableError(f"The store answered {word!r}.")


def _new_job(given: Any, where: str) -> NewJob:
    if not isinstance(given, dict):
        raise InvalidError(f"{where} is not a JSON object. A job looks like {EXAMPLE}")
    if unknown := given.keys() - {"start", "end"}:
        raise InvalidError(
            f"{where} has fields that a job does not have: {_names(unknown)}. A job looks like {EXAMPLE}"
        )
    for name in ("start", "end"):
        if name not in given:
            raise InvalidError(f"{where} has no {name}. A job looks like {EXAMPLE}")
        if not isinstance(given[name], str):
            raise InvalidError(
                f"{name} in {where[0].lower()}{where[1:]} is not a string or a number. A job looks like {EXAMPLE}"
            )
        _check_text(name, given[name])
    return NewJob(str(uuid.uuid4()), given["start"], given["end"])


def _check_text(name: str, text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidError(f"{name} is not valid Unicode: it has half of a surrogate pair.") from None
    if size > MAX_FIELD_BYTES:
        raise InvalidError(f"{name} is {size} bytes long; {MAX_FIELD_BYTES} is the most.")


def _names(unknown: set[str]) -> str:
    return ", ".join(ascii(name)[:40] for name in sorted(unknown)[:5])


def _number_fields(job: NewJob) -> str:
    return " ".join(name for name in ("start", "end") if isinstance(getattr(job, name), Number))


def _json(value: str) -> str:
    return str(value) if isinstance(value, Number) else json.dumps(value, ensure_ascii=False)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
