"""Submitting jobs: from the body of a request to jobs that are saved and announced."""

import hashlib
import json
import time
import uuid
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from msgspec import Raw

from knative_jobs.jobs import announcement
from knative_jobs.runtime import job_key, job_kind, rfc3339, tracing
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
MAX_AHEAD_SECONDS = 365 * 24 * 3600
"""How far ahead the time may be that a job waits for."""
_OPTIONS = {"delay", "run-at", "max-attempts", "timeout", "retention"}
_FIELDS = {"kind", "start", "end", "input", "key"} | _OPTIONS
EXAMPLE = '{"start": "1", "end": "2"}'


class Number(str):
    """A JSON number, as it was written: 1.10 stays 1.10, and no digit of a long one is lost."""

    __slots__ = ()


_read_body = msgspec.json.Decoder(dict[str, Raw] | list[Raw]).decode
_read_job = msgspec.json.Decoder(dict[str, Raw]).decode
_read_text = msgspec.json.Decoder(str).decode
_read_number = msgspec.json.Decoder(float).decode


class NewJob(NamedTuple):
    """A job as it was submitted."""

    id: JobId
    kind: str
    start: str | Number | None
    """None: the job has neither start nor end."""
    end: str | Number | None
    input: str
    """As JSON; empty: the job has none."""
    options: dict[str, str]
    """What the job says for itself: `delay` or `run-at`, `max-attempts`, `timeout`, `retention`; in seconds."""
    key: str
    """A word of the submitter's own that jobs can be found by; empty: none."""

    def json(self) -> str:
        """Return the public record of a job that has just been submitted."""
        end = "" if self.end is None else f'"end":{_json(self.end)},'
        start = "" if self.start is None else f'"start":{_json(self.start)},'
        given = f'"input":{self.input},' if self.input else ""
        kind = "" if self.kind == DEFAULT_KIND else f'"kind":"{self.kind}",'
        key = f'"key":{_json(self.key)},' if self.key else ""
        options = "".join(f'"{name}":{value},' for name, value in self.options.items())
        return f'{{{end}"id":"{self.id}",{given}{key}{kind}{options}{start}"status":"{Status.SUBMITTED}"}}'

    def as_saved(self, job_id: JobId, run_at: str | None) -> "NewJob":
        """Return the job with its id, and with the time that it waits for in place of a delay."""
        if not run_at:
            return self._replace(id=job_id)
        options = {name: value for name, value in self.options.items() if name != "delay"}
        return self._replace(id=job_id, options=options | {"run-at": run_at})

    def stored(self) -> state.NewJob:
        """Return the job as it is stored."""
        options = " ".join(f"{name} {value}" for name, value in self.options.items())
        if self.start is None or self.end is None:
            return state.NewJob(self.id, self.kind, "", "", state.ABSENT, self.input, options, self.key)
        numbers = " ".join(name for name in ("start", "end") if isinstance(getattr(self, name), Number))
        return state.NewJob(self.id, self.kind, self.start, self.end, numbers, self.input, options, self.key)


class Submitted(NamedTuple):
    """What a submission came to; `replayed` says that an earlier one with the same idempotency key stands for it."""

    jobs: list[NewJob]
    replayed: bool


def parse(body: bytes, what: str = "The body") -> tuple[list[NewJob], bool]:
    """Read the jobs in a body: one object, or an array of them. Return them and whether it was an array.

    Args:
        body: the JSON.
        what: what that is, for errors.

    Raises:
        InvalidError: it is not that; the message says where and what.
    """
    try:
        given = _read_body(body.decode(json.detect_encoding(body)))
    except msgspec.ValidationError as error:
        raise _no_object(what) from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidError(f"{what} is not JSON ({_why(body, error)}). A job looks like {EXAMPLE}") from error
    if isinstance(given, dict):
        return [_new_job(given, what)], False
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
        InvalidError: the idempotency key is too long, or a `run-at` is over.
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
                due_now = [job for job in jobs if job.kind == kind and job.id not in reply.run_at]
                events = ((job.id, 1, job.json().encode()) for job in due_now)
                announcement.announce(kind, events, due - len(due_now), traceparent)
            if not reply.run_at:
                return Submitted(jobs, replayed=False)
            announcement.announce_at(map(float, reply.run_at.values()))
            return Submitted([job.as_saved(job.id, reply.run_at.get(job.id)) for job in jobs], replayed=False)
        case "replayed":
            there = zip(jobs, map(JobId, reply.known), strict=True)
            return Submitted([job.as_saved(job_id, reply.run_at.get(job_id)) for job, job_id in there], replayed=True)
        case "past":
            raise InvalidError(f"run-at of job {reply.past} is over. Leave it out for a job that is due now.")
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
    options = _options(given, kind, inside) if given.keys() & _OPTIONS else {}
    key = _key(given["key"], inside) if "key" in given else ""
    return NewJob(JobId(str(uuid.uuid4())), kind, start, end, _input(given, inside), options, key)


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


def _key(given: Raw, inside: str) -> str:
    written = bytes(given)
    key = _read_text(written) if written[:1] == b'"' else ""
    if not job_key.is_key(key):
        raise InvalidError(f"key in {inside} is not {job_key.WHAT}.")
    return key


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


def _options(given: dict[str, Raw], kind: str, inside: str) -> dict[str, str]:
    """Return what a job says for itself, as it is stored."""
    s = settings()
    if "delay" in given and "run-at" in given:
        raise InvalidError(f"delay and run-at are both in {inside}; a job has one of them.")
    options = {}
    if "delay" in given and (delay := _number("delay", given["delay"], inside, 0, MAX_AHEAD_SECONDS)) > 0:
        options["delay"] = f"{delay:.6f}"
    if "run-at" in given:
        options["run-at"] = f"{_time(given['run-at'], inside):.6f}"
    if "max-attempts" in given:
        attempts = _number("max-attempts", given["max-attempts"], inside, 1, s.job_max_attempts)
        if not attempts.is_integer():
            raise InvalidError(f"max-attempts in {inside} is a whole number from 1 to {s.job_max_attempts}.")
        options["max-attempts"] = str(int(attempts))
    if "timeout" in given:
        # Workers of another kind, and those that a JobSink makes, have a limit of their own, and keep to it.
        is_known = kind == DEFAULT_KIND and kind not in s.jobsink_kinds
        most = s.job_timeout_seconds if is_known else MAX_AHEAD_SECONDS
        options["timeout"] = _seconds("timeout", given["timeout"], inside, most)
    if "retention" in given:
        options["retention"] = _seconds("retention", given["retention"], inside, s.job_retention_seconds)
    return options


def _seconds(name: str, given: Raw, inside: str, most: float) -> str:
    return f"{_number(name, given, inside, 0.1, most):.6f}".rstrip("0").rstrip(".")


def _number(name: str, given: Raw, inside: str, least: float, most: float) -> float:
    try:
        number = _read_number(given)
    except msgspec.DecodeError:
        number = least - 1
    if not least <= number <= most:
        raise InvalidError(f"{name} in {inside} is a number from {least:g} to {most:.15g}, not {_quoted(given)}.")
    return number


def _time(given: Raw, inside: str) -> float:
    """Return the seconds of the epoch that `run-at` names, in these or as RFC 3339 has it.

    Whether that is over is for Redis's clock to say.
    """
    try:
        at = _read_number(given) if bytes(given)[:1] != b'"' else rfc3339.seconds(_read_text(given))
    except (msgspec.DecodeError, ValueError):
        at = -1
    if at < 0:
        example = datetime.fromtimestamp(time.time() + 3600, UTC).isoformat(timespec="seconds")
        raise InvalidError(
            f'run-at in {inside} is a time: seconds since the epoch, or as "{example}"; not {_quoted(given)}.'
        )
    if at > time.time() + MAX_AHEAD_SECONDS:
        raise InvalidError(f"run-at in {inside} is at most 365 days ahead.")
    return at


def _quoted(given: Raw) -> str:
    return bytes(given)[:40].decode(errors="replace")


def _names(unknown: set[str]) -> str:
    return ", ".join(ascii(name)[:40] for name in sorted(unknown)[:5])


def _compared(job: state.NewJob) -> tuple[str, ...]:
    """Return what makes two jobs the same. That of a job of before there were kinds stays as it was."""
    plain = job.start, job.end, job.number_fields
    kind = () if (job.kind, job.input) == (DEFAULT_KIND, "") else (job.kind, job.input)
    return *plain, *kind, *filter(None, [job.options]), *(["key", job.key] if job.key else [])


def _json(value: str) -> str:
    return str(value) if isinstance(value, Number) else json.dumps(value, ensure_ascii=False)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
