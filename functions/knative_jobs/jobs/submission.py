"""Submitting jobs: from the body of a request to jobs that are saved and announced."""

import hashlib
import json
import uuid
from typing import NamedTuple

import msgspec
from msgspec import Raw

from knative_jobs.jobs import announcement
from knative_jobs.runtime import job_kind, tracing
from knative_jobs.runtime.errors import GoneError, InvalidError, KeyReusedError, QueueFullError, UnavailableError
from knative_jobs.runtime.job_id import JobId
from knative_jobs.runtime.job_status import Status
from knative_jobs.runtime.settings import DEFAULT_KIND, settings
from knative_jobs.store import state
from knative_jobs.work import messages

MAX_BATCH = 1000
MAX_FIELD_BYTES = 4096
MAX_INPUT_BYTES = 256 * 1024
MAX_KEY_LENGTH = 255
_FIELDS = {"kind", "start", "end", "input"}
EXAMPLE = '{"start": "1", "end": "2"}'


class Number(str):
    """A JSON number, as it was written: 1.10 stays 1.10, and no digit of a long one is lost."""

    __slots__ = ()


_read_body = msgspec.json.Decoder(dict[str, Raw] | list[Raw]).decode
_read_job = msgspec.json.Decoder(dict[str, Raw]).decode
_read_text = msgspec.json.Decoder(str).decode


class NewJob(NamedTuple):
    """A job as it was submitted."""

    id: JobId
    kind: str
    start: str | Number | None
    """None: the job has neither start nor end."""
    end: str | Number | None
    input: str
    """As JSON; empty: the job has none."""

    def json(self) -> str:
        """Return the public record of a job that has just been submitted."""
        end = "" if self.end is None else f'"end":{_json(self.end)},'
        start = "" if self.start is None else f'"start":{_json(self.start)},'
        given = f'"input":{self.input},' if self.input else ""
        kind = "" if self.kind == DEFAULT_KIND else f'"kind":"{self.kind}",'
        return f'{{{end}"id":"{self.id}",{given}{kind}{start}"status":"{Status.SUBMITTED}"}}'

    def stored(self) -> state.NewJob:
        """Return the job as it is stored."""
        if self.start is None or self.end is None:
            return state.NewJob(self.id, self.kind, "", "", state.ABSENT, self.input)
        numbers = " ".join(name for name in ("start", "end") if isinstance(getattr(self, name), Number))
        return state.NewJob(self.id, self.kind, self.start, self.end, numbers, self.input)


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
        given = _read_body(body.decode(json.detect_encoding(body)))
    except msgspec.ValidationError as error:
        raise _no_object("The body") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidError(f"The body is not JSON ({_why(body, error)}). A job looks like {EXAMPLE}") from error
    if isinstance(given, dict):
        return [_new_job(given, "The body")], False
    if not 1 <= len(given) <= MAX_BATCH:
        raise InvalidError(f"A batch has 1 to {MAX_BATCH} jobs; this one has {len(given)}.")
    return [_new_job(_job_of(job, i), f"Job {i} of the batch") for i, job in enumerate(given)], True


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
    stored = [job.stored() for job in jobs]
    known = ("", "")
    if idempotency_key:
        known = _digest(f"{submitted_by} {idempotency_key}"), _digest(repr(list(map(_compared, stored))))
    traceparent = tracing.parse(traceparent)
    reply = state.submit(stored, *known, submitted_by, traceparent)
    match reply.word:
        case "submitted":
            for kind, due in reply.due.items():
                of_kind = [job for job in jobs if job.kind == kind]
                events = ((job.id, 1, job.json().encode()) for job in of_kind)
                announcement.announce(kind, events, due - len(of_kind), traceparent)
            return Submitted(jobs, replayed=False)
        case "replayed":
            there = zip(jobs, map(JobId, reply.known), strict=True)
            return Submitted([job._replace(id=job_id) for job, job_id in there], replayed=True)
        case "gone":
            raise GoneError(
                "The jobs of this Idempotency-Key have ended, and were removed when their retention was over. "
                "To submit them once more, take a new key."
            )
        case "reused":
            raise KeyReusedError("This Idempotency-Key stands for another submission; take a new key for a new one.")
        case "full":
            raise QueueFullError("Too many jobs wait already; submit again later.")
    raise UnavailableError(f"The store answered {reply.word!r}.")


def _why(body: bytes, error: Exception) -> str:
    """Return what is wrong with a body, as the standard library says it: with the line and column."""
    try:
        json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as known:
        return str(known)
    return str(error) if isinstance(error, RecursionError) else "not valid Unicode: half of a surrogate pair"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _no_object(where: str) -> InvalidError:
    return InvalidError(f"{where} is not a JSON object. A job looks like {EXAMPLE}")


def _job_of(given: Raw, place: int) -> dict[str, Raw]:
    try:
        return _read_job(given)
    except msgspec.ValidationError as error:
        raise _no_object(f"Job {place} of the batch") from error


def _new_job(given: dict[str, Raw], where: str) -> NewJob:
    if unknown := given.keys() - _FIELDS:
        raise InvalidError(
            f"{where} has fields that a job does not have: {_names(unknown)}. A job looks like {EXAMPLE}"
        )
    inside = f"{where[0].lower()}{where[1:]}"
    kind = _kind(given, inside)
    start = end = None
    if kind == DEFAULT_KIND or "start" in given or "end" in given:
        for name in ("start", "end"):
            if name not in given:
                raise InvalidError(f"{where} has no {name}. A job looks like {EXAMPLE}")
        start, end = (_text_or_number(name, given[name], inside) for name in ("start", "end"))
    return NewJob(JobId(str(uuid.uuid4())), kind, start, end, _input(given, inside))


def _kind(given: dict[str, Raw], inside: str) -> str:
    if "kind" in given:
        written = bytes(given["kind"])
        kind = _read_text(written) if written[:1] == b'"' else ""
        if not job_kind.is_name(kind):
            raise InvalidError(
                f"kind in {inside} is not the name of a kind: that is 1 to 63 small letters, digits and hyphens, "
                "a letter first."
            )
    else:
        kind = DEFAULT_KIND
    if kind not in settings().job_kinds:
        raise InvalidError(f"There is no kind {kind}, which {inside} has; kind is one of: {_kinds()}.")
    return kind


def _kinds() -> str:
    return ", ".join(settings().job_kinds)


def _text_or_number(name: str, given: Raw, inside: str) -> str | Number:
    written = bytes(given)
    if written[:1] == b'"':
        text = _read_text(written)
    elif written[0] in b"-0123456789":
        text = Number(written.decode())
    else:
        raise InvalidError(f"{name} in {inside} is not a string or a number. A job looks like {EXAMPLE}")
    if len(text) > MAX_FIELD_BYTES // 4 and (size := len(text.encode())) > MAX_FIELD_BYTES:
        raise InvalidError(f"{name} is {size} bytes long; {MAX_FIELD_BYTES} is the most.")
    return text


def _input(given: dict[str, Raw], inside: str) -> str:
    """Return the input of a job, byte for byte."""
    if "input" not in given:
        return ""
    written = bytes(given["input"])
    if len(written) > MAX_INPUT_BYTES:
        raise InvalidError(f"input in {inside} is {len(written)} bytes long; {MAX_INPUT_BYTES} is the most.")
    text = written.decode()
    try:
        messages.check_readable(text)
    except ValueError as error:
        raise InvalidError(f"input in {inside} cannot be taken: {error}.") from error
    return text


def _names(unknown: set[str]) -> str:
    return ", ".join(ascii(name)[:40] for name in sorted(unknown)[:5])


def _compared(job: state.NewJob) -> tuple[str, ...]:
    """Return what makes two jobs the same. That of a job of before there were kinds stays as it was."""
    plain = job.start, job.end, job.number_fields
    return plain if (job.kind, job.input) == (DEFAULT_KIND, "") else (*plain, job.kind, job.input)


def _json(value: str) -> str:
    return str(value) if isinstance(value, Number) else json.dumps(value, ensure_ascii=False)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
