"""One attempt of a job, from its claim to its outcome: the work in its process, the heartbeat beside it."""

import functools
import json
import logging
import random
import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from math import inf
from typing import Any, NamedTuple, Protocol

from knative_jobs.jobs import announcement, outbox
from knative_jobs.runtime import redis_url, tracing, work_address
from knative_jobs.runtime.errors import UnavailableError
from knative_jobs.runtime.logs import about
from knative_jobs.runtime.settings import settings
from knative_jobs.runtime.shutdown import stopping
from knative_jobs.store import state
from knative_jobs.work import job_log, launcher
from knative_jobs.work.api import MAX_PROGRESS_MESSAGE
from knative_jobs.work.http_service import HttpExchange
from knative_jobs.work.messages import MAX_CHECKPOINT_BYTES, MAX_ERROR_TEXT, BadMessageError, is_result, storable

MAX_BACKOFF_SECONDS = 3600
_MAX_HEARTBEAT_SECONDS = 1.0  # so that a wish to cancel, and SIGTERM, are noticed soon
_PROCESSES = {
    "messaging.system": "knative",
    "messaging.operation.name": "attempt",
    "messaging.operation.type": "process",
}

_NO_CHECKPOINT = json.dumps(
    {
        "type": "NoCheckpoint",
        "message": "the work raised Continue without a checkpoint newer than the one it began with",
    }
)
_log = logging.getLogger("knative_jobs.worker")
_hands = threading.BoundedSemaphore(settings().worker_concurrency)
"""One for each job that this worker may do at once."""


class _Outcome(NamedTuple):
    """How an attempt ended, in the words of `state.finish`; `lost` when another has the job."""

    word: str
    payload: str = ""
    delay_s: float = 0
    checkpoint: str = ""
    """As JSON, if it is not recorded yet."""
    said: job_log.Said = job_log.NOTHING_SAID
    """What the attempt has said since the last heartbeat."""


def work_through(job_id: str) -> None:
    """Do the named job, then whatever else is due, for up to WORKER_DRAIN_SECONDS.

    Where the named job is not due (another worker has it, or it has ended), the worker begins with the job that has
    been due the longest: a worker that was started works. When nothing is due this costs one script call.

    A worker does WORKER_CONCURRENCY jobs at once: while more is due, other threads join. This returns when all of them
    have ended, so that the request, and with it the worker, lasts as long as its jobs.

    Jobs that are still due when the time is over are announced, so that they need not wait for the sweeper.

    Raises:
        UnavailableError: Redis is away, and what was done could not be recorded; or this worker is being stopped.
    """
    joined: list[Future[None]] = []
    ended: list[Future[None]] = []
    try:
        with _hands:
            if stopping.is_set():
                raise UnavailableError("This worker is being stopped; another will do the job.")
            _drain(job_id, time.monotonic() + settings().worker_drain_seconds, joined)
    finally:
        while joined:
            ended.append(joined.pop())
            wait(ended[-1:])
    for other in ended:
        other.result()


def _drain(job_id: str, ends_at: float, joined: list[Future[None]]) -> None:
    """Do one job after the other, the named one first. While more is due, have another thread join and do the same.

    Args:
        job_id: the job to begin with; empty: the one that has been due the longest.
        ends_at: when to claim no further job, as `time.monotonic()` has it.
        joined: the threads that have joined; another one is added.
    """
    held = state.claim(job_id, worker_ip())
    if isinstance(held, state.Claim) and _hands.acquire(blocking=False):
        joined.append(_threads().submit(_join, ends_at, joined))
    while isinstance(held, state.Claim):
        with _span(held) as span:
            held = held._replace(traceparent=span.traceparent)
            outcome = _run(held)
            more = not stopping.is_set() and time.monotonic() < ends_at
            held = _finish(held, outcome, span, next_for=worker_ip() if more else "")
        if settings().job_events:
            outbox.announce_soon()
        if not more:
            announcement.hand_over(settings().job_kind)


def _join(ends_at: float, joined: list[Future[None]]) -> None:
    try:
        if not stopping.is_set():  # what others hand back now is not for this worker
            _drain("", ends_at, joined)
    finally:
        _hands.release()


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(settings().worker_concurrency, "worker")


def work_on(job_id: str) -> None:
    """Do one attempt of one job: the named one, or where that is not due, the one that has been due the longest.

    Raises:
        UnavailableError: Redis is away, and what was done could not be recorded.
    """
    held = state.claim(job_id, worker_ip())
    announcement.announce_pending_soon()  # the claim has made room for another Kubernetes Job
    if isinstance(held, state.Claim):
        with _span(held) as span:
            held = held._replace(traceparent=span.traceparent)
            _finish(held, _run(held), span)
        announcement.announce_pending_soon()  # a job that was handed back is due again


@functools.cache
def worker_ip() -> str:
    """Return the address that this worker is known by."""
    if settings().worker_ip:
        return settings().worker_ip
    unresolved: OSError | None = None
    for host, port in redis_url.parse(settings().redis_url).nodes or [("127.0.0.1", 6379)]:
        try:
            family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind) as probe:
                probe.connect(address)  # sends nothing: only chooses the interface
                return str(probe.getsockname()[0])
        except OSError as error:  # of several Sentinels one may be gone, and its name with it
            unresolved = error
    raise UnavailableError("No host of REDIS_URL has an address.") from unresolved


def _span(held: state.Claim) -> AbstractContextManager[tracing.Span]:
    attributes: dict[str, str | int] = {"job.id": held.id, "job.kind": held.kind, "job.attempt": held.attempt}
    return tracing.span("attempt", "CONSUMER", held.traceparent, _PROCESSES | attributes)


def _finish(held: state.Claim, outcome: _Outcome, span: tracing.Span, next_for: str = "") -> state.Claim | str:
    """Record how an attempt ended. Return the next claim, where one is asked for and to be had."""
    if outcome.word == "lost":
        status, following = "refused", state.claim("", next_for) if next_for else "none"
    else:
        status, following = state.finish(held, *outcome, next_for=next_for)
    span.note("job.outcome", "lost" if status == "refused" else outcome.word)
    if status == "refused":
        span.went_wrong("lost")
        _log.warning(
            "job %s attempt %s: late finish refused, another has the job", held.id, held.attempt, extra=_about(held)
        )
    else:
        if outcome.word in ("error", "failed"):
            span.went_wrong(json.loads(outcome.payload)["type"])
        _log.info("job %s attempt %s: %s", held.id, held.attempt, status, extra=_about(held))
    return following


class _Doer(Protocol):
    """What does the work of one attempt: a process, or a service. See `launcher.WorkProcess`."""

    def attribute(self, *attempt: Any) -> None: ...
    def send(self, *message: Any) -> None: ...
    def receive(self, until: float) -> list[Any] | None: ...
    def release(self) -> None: ...
    def end(self, patience_s: float = 0) -> str: ...


def _run(held: state.Claim) -> _Outcome:
    """Have the work done; meanwhile renew the lease.

    A process from which no outcome came is ended, for it may still do the work, and would send the outcome later.
    """
    try:
        doer = _doer()
    except OSError as error:
        return _went_wrong(held, "WorkProcessDied", f"the process for the work could not be started: {error}")
    heartbeat = _Heartbeat(held)
    job_log.begin(held.id, held.attempt)
    try:
        doer.attribute(held.id, held.attempt, held.traceparent, held.kind)
        outcome, has_answered = _supervise(doer, heartbeat)
    except (EOFError, OSError):
        how = doer.end(launcher.EXIT_SECONDS)
        outcome = _went_wrong(held, "WorkProcessDied", f"the process that did the work ended: {how}")
    except BadMessageError as error:
        doer.end()
        # For the log alone: it may be part of another job's message.
        _log.warning("job %s attempt %s: not a message: %s", held.id, held.attempt, error, extra=_about(held))
        outcome = _went_wrong(held, "WorkProcessDied", "the process that did the work sent what is not a message")
    except BaseException:
        doer.end()
        raise
    else:
        if has_answered:
            doer.attribute()
            doer.release()
        else:
            doer.end()
    finally:
        said = job_log.end(held.id, held.attempt)
    return outcome._replace(checkpoint=heartbeat.checkpoint, said=said)


def _doer() -> _Doer:
    return HttpExchange() if work_address.is_address(settings().job_work) else launcher.take()


def _supervise(doer: _Doer, heartbeat: "_Heartbeat") -> tuple[_Outcome, bool]:
    """Have the work done. Return the outcome, and whether it was told: then the work is over.

    Raises:
        EOFError, OSError: the process has ended.
        BadMessageError: it sent something that is not a message.
    """
    held = heartbeat.held
    timeout_s = _timeout(held)
    ends_at = time.monotonic() + timeout_s
    release_at = float("inf")
    cancel_sent = stopping_sent = False
    mine = [held.id, held.attempt]
    given = held.kind, held.start, held.end, held.number_fields, held.input, held.traceparent, held.checkpoint
    doer.send("work", *mine, *given, timeout_s)
    while True:
        word = ""
        message = doer.receive(heartbeat.due_at)
        if message is None:
            word = heartbeat.renew()
        elif message[1:3] == mine:
            match _said(held, message[0], message[3:]):
                case _Outcome() as outcome:
                    return outcome, True
                case progress, text:
                    word = heartbeat.renew(progress, text)
                case checkpoint:
                    heartbeat.checkpoint = checkpoint
                    word = heartbeat.renew_if_due()
        elif message[0] == "unusable":
            return _went_wrong(held, "WorkProcessDied", launcher.unusable(str(message[-1]))), False
        elif message != ["ready"]:
            _log.warning(
                "job %s attempt %s: a message of another attempt is dropped: %.100r", *mine, message, extra=_about(held)
            )
        if word == "cancel" and not cancel_sent:
            doer.send("cancel", *mine)
            cancel_sent = True
        now = time.monotonic()
        if stopping.is_set() and not stopping_sent:
            release_at = now + settings().worker_grace_seconds
            doer.send("stopping", *mine, settings().worker_grace_seconds)
            stopping_sent = True
        if word == "lost":
            return _Outcome("lost"), False
        if now >= ends_at:
            return _went_wrong(held, "TimeoutError", f"not done within {timeout_s:g} seconds"), False
        if now >= release_at:
            return _Outcome("released"), False


def _timeout(held: state.Claim) -> float:
    """Return how long the attempt may take: what the job says for itself, and no longer than the worker lets it."""
    most = settings().job_timeout_seconds
    return min(float(held.timeout), most) if held.timeout else most


def _said(held: state.Claim, word: str, details: list[Any]) -> _Outcome | tuple[str, str] | str:
    """Return the outcome that a message of the process tells; or the progress and the text with it; or a checkpoint.

    Raises:
        BadMessageError: it tells none of these.
    """
    match word, details:
        case "complete", [str(result)] if is_result(result):
            return _Outcome("complete", result)
        case "progress", [int() | float() as fraction, str(text)] if 0 <= fraction <= 1:
            return f"{fraction:.4g}", storable(text[:MAX_PROGRESS_MESSAGE])
        case "checkpoint", [str(checkpoint)] if is_result(checkpoint, MAX_CHECKPOINT_BYTES):
            return checkpoint
        case "continue", []:
            return _Outcome("continued", _NO_CHECKPOINT, _backoff(held))
        case "cancelled", []:
            return _Outcome("cancelled")
        case "failed", [{"type": str(), "message": str()} as error]:
            return _Outcome("failed", _recorded(error))
        case "error", [{"type": str(), "message": str()} as error, None]:
            return _Outcome("error", _recorded(error), _backoff(held))
        case "error", [{"type": str(), "message": str()} as error, int() | float() as delay_s] if 0 <= delay_s < inf:
            return _Outcome("error", _recorded(error), delay_s)
    raise BadMessageError(f"{word!r} with {details!r}"[:100])


def _recorded(error: dict[str, Any]) -> str:
    """Return an error, as the process describes it, as JSON of bounded size."""
    known = {name: error[name] for name in ("type", "message", "traceback") if isinstance(error.get(name), str)}
    return json.dumps({name: storable(text[:MAX_ERROR_TEXT]) for name, text in known.items()})


class _Heartbeat:
    """The heartbeat of one attempt. It takes with it the checkpoint, and what the work has said, since the last one."""

    def __init__(self, held: state.Claim) -> None:
        self.held = held
        self.checkpoint = ""
        """As JSON, if it is not recorded yet."""
        self._every_s = min(settings().job_lease_seconds / 3, _MAX_HEARTBEAT_SECONDS)
        self.due_at = time.monotonic() + self._every_s
        """As `time.monotonic()` has it."""
        self._log_due_at = self.due_at

    def renew(self, progress: str = "", message: str = "") -> str:
        """Renew the lease, with progress where there is some. Whatever goes wrong with that, the work goes on.

        Returns:
            What `state.renew` returns, or `missed`.
        """
        held, now = self.held, time.monotonic()
        said = job_log.NOTHING_SAID
        if now >= self._log_due_at:  # progress may come more often than a log is written
            said = job_log.take(held.id, held.attempt)
            self._log_due_at = now + _MAX_HEARTBEAT_SECONDS
        self.due_at = now + self._every_s
        try:
            word = state.renew(held, progress, message, self.checkpoint, said)
        except Exception as error:
            job_log.put_back(held.id, held.attempt, said)
            _log.warning("job %s attempt %s: heartbeat missed: %s", held.id, held.attempt, error, extra=_about(held))
            return "missed"
        self.checkpoint = ""
        return word

    def renew_if_due(self) -> str:
        """Do the same if it is time for that; else return nothing."""
        return self.renew() if time.monotonic() >= self.due_at else ""


def _about(held: state.Claim) -> dict[str, Any]:
    return about(held.id, held.attempt, held.traceparent, held.kind)


def _went_wrong(held: state.Claim, kind: str, message: str) -> _Outcome:
    return _Outcome("error", json.dumps({"type": kind, "message": message}), _backoff(held))


def _backoff(held: state.Claim) -> float:
    """Exponential, with "equal jitter": between half of the wait and all of it.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    wait = min(settings().job_backoff_seconds * 2.0 ** min(held.failures, 32), MAX_BACKOFF_SECONDS)
    return wait * random.uniform(0.5, 1)  # noqa: S311
