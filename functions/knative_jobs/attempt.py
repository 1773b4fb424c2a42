"""One attempt of a job, from its claim to its outcome: the work in its process, the heartbeat beside it."""

import functools
import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from knative_jobs import store
from knative_jobs.errors import UnavailableError
from knative_jobs.settings import InvalidSettingError, settings, work_environment
from knative_jobs.shutdown import stopping
from knative_jobs.sweep import announce_overdue

MAX_BACKOFF_SECONDS = 3600
THE_OLDEST = ""
_MAX_HEARTBEAT_SECONDS = 1.0  # so that a wish to cancel, and SIGTERM, are noticed soon

_log = logging.getLogger("knative_jobs.worker")
_one_at_a_time = threading.Lock()


class _Outcome(NamedTuple):
    """How an attempt ended, in the words of `store.finish`; `lost` when another has the job."""

    word: str
    payload: str = ""
    delay_s: float = 0


class _WorkProcess:
    """The running process that does the work."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "knative_jobs.work_process", str(theirs.fileno())],
                stdin=subprocess.PIPE,  # held open: its end tells the process that the worker is gone
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=work_environment(PYTHONPATH=os.pathsep.join(filter(None, sys.path)), PYTHONUNBUFFERED="1"),
            )
        self.connection: Connection[Any, Any] = Connection(ours.detach())
        self.pid = os.getpid()

    def wait_until_ready(self) -> None:
        """Wait until the user's work is imported.

        Raises:
            InvalidSettingError: it cannot be.
        """
        try:
            kind, why = self.connection.recv()
        except (EOFError, OSError):
            kind, why = "unusable", f"its process died: {self.end()}"
        if kind != "ready":
            raise InvalidSettingError(f"JOB_WORK={settings().job_work!r} cannot be used: {why}")

    def end(self) -> str:
        """End the process and all that it started. Return how it ended."""
        try:
            code = self._process.wait(0.1 if self._process.poll() is None else 0)
        except subprocess.TimeoutExpired:
            code = None
        if code is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            code = self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"


_process: _WorkProcess | None = None


def prepare() -> None:
    """Start the process that will do the work.

    Raises:
        InvalidSettingError: the user's work cannot be imported.
    """
    global _process
    _process = _WorkProcess()
    _process.wait_until_ready()


def work_through(job_id: str) -> None:
    """Do the named job, then go on with whatever is due, for as long as WORKER_DRAIN_SECONDS.

    Where the named job is somebody else's, there is nothing to do here. Where jobs are still due at the end, the next
    one is announced, so that they need not wait for the sweeper.

    Raises:
        UnavailableError: Redis is away, and what was done could not be recorded; or this worker is being stopped.
    """
    with _one_at_a_time:
        if stopping.is_set():
            raise UnavailableError("This worker is being stopped; another will do the job.")
        ends_at = time.monotonic() + settings().worker_drain_seconds
        busy = work_on(job_id)
        while busy and not stopping.is_set() and time.monotonic() < ends_at:
            busy = work_on(THE_OLDEST)
        if busy:
            announce_overdue(for_s=0, most=1)


def work_on(job_id: str) -> bool:
    """Claim the named job, or THE_OLDEST that is due, do one attempt of it and record how that ended.

    Returns:
        Whether there was a job to claim.

    Raises:
        UnavailableError: Redis is away, and what was done could not be recorded.
    """
    held = store.claim(job_id, worker_ip())
    if isinstance(held, str):
        _log.debug("job %s: %s", job_id, held)
        return False
    outcome = _run(held)
    status = "refused" if outcome.word == "lost" else store.finish(held, *outcome)
    if status == "refused":
        _log.warning("job %s attempt %s: late finish refused, another has the job", held.id, held.attempt)
    else:
        _log.info("job %s attempt %s: %s", held.id, held.attempt, status)
    return True


@functools.cache
def worker_ip() -> str:
    """Return the address that this worker is known by."""
    if settings().worker_ip:
        return settings().worker_ip
    redis_at = urlsplit(settings().redis_url)
    host, port = redis_at.hostname or "127.0.0.1", redis_at.port or 6379
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)  # sends nothing: only chooses the interface
        return str(probe.getsockname()[0])


def _run(held: store.Claim) -> _Outcome:
    """Have the work done; meanwhile renew the lease."""
    if _process is None or _process.pid != os.getpid():  # a server that forks starts its own
        prepare()
    assert _process is not None  # noqa: S101
    try:
        return _supervise(_process.connection, held)
    except (EOFError, OSError):
        return _went_wrong(held, "WorkProcessDied", f"the process that did the work ended: {_discard_process()}")


def _supervise(process: "Connection[Any, Any]", held: store.Claim) -> _Outcome:
    heartbeat = min(settings().job_lease_seconds / 3, _MAX_HEARTBEAT_SECONDS)
    ends_at = time.monotonic() + settings().job_timeout_seconds
    release_at = float("inf")
    start, end = _value(held, "start"), _value(held, "end")
    process.send(("work", {"id": held.id, "attempt": held.attempt, "start": start, "end": end}))
    while True:
        match process.recv() if process.poll(heartbeat) else ("at work",):
            case ("complete", result):
                return _Outcome("complete", result)
            case ("failed", error):
                return _Outcome("failed", json.dumps(error))
            case ("cancelled", _):
                return _Outcome("cancelled")
            case ("error", error, delay):
                return _Outcome("error", json.dumps(error), _backoff(held) if delay is None else delay)
            case ("progress", fraction, message):
                word = _renew(held, f"{fraction:.4g}", message)
            case _:
                word = _renew(held)
        if word == "cancel":
            process.send(("cancel", held.id))
        now = time.monotonic()
        if stopping.is_set():
            release_at = min(release_at, now + settings().worker_grace_seconds)
        if word == "lost":
            _discard_process()
            return _Outcome("lost")
        if now >= ends_at:
            _discard_process()
            return _went_wrong(held, "TimeoutError", f"not done within {settings().job_timeout_seconds:g} seconds")
        if now >= release_at:
            _discard_process()
            return _Outcome("released")


def _discard_process() -> str:
    """End the process that does the work; the next attempt starts another. Return how it ended."""
    global _process
    assert _process is not None  # noqa: S101
    ended, _process = _process.end(), None
    return ended


def _renew(held: store.Claim, progress: str = "", message: str = "") -> str:
    try:
        return store.renew(held, progress, message)
    except UnavailableError as error:
        _log.warning("job %s attempt %s: heartbeat missed: %s", held.id, held.attempt, error)
        return "missed"


def _value(held: store.Claim, name: str) -> str | float:
    """Return start or end as the user's work gets it: a number where a number was submitted."""
    text: str = getattr(held, name)
    value: str | float = json.loads(text) if name in held.number_fields.split() else text
    return value


def _went_wrong(held: store.Claim, kind: str, message: str) -> _Outcome:
    return _Outcome("error", json.dumps({"type": kind, "message": message}), _backoff(held))


def _backoff(held: store.Claim) -> float:
    """Exponential, with "equal jitter": between half of the wait and all of it.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    wait = min(settings().job_backoff_seconds * 2.0 ** min(held.failures, 32), MAX_BACKOFF_SECONDS)
    return wait * random.uniform(0.5, 1)  # noqa: S311
