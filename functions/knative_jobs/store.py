"""The state of all jobs, in Redis. The only module that knows Redis.

Every change is one Lua script (see `lua/`; `lua/life.lua` names the keys), so it happens as a whole or not at all.
A call is repeated once when its connection breaks; the scripts are written so that a repetition does no harm.

All functions raise UnavailableError when Redis is away or takes no writes; an endpoint knows so in under three seconds.
"""

import hashlib
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

from knative_jobs.errors import UnavailableError
from knative_jobs.settings import settings

IDEMPOTENCY_KEY_SECONDS = 24 * 3600
REFUSE_SECONDS = 1
"""After a call that failed, so long all others fail at once: a server has few threads, and none shall wait in vain."""
_PAGE = 1000  # records in one reply of Redis: some milliseconds of its time
_NO_ANSWER = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
_REFUSES_WRITES = (redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError)


class Claim(NamedTuple):
    """A worker's hold on one attempt of a job. `attempt` is the fencing token; times are renewed by `renew`."""

    id: str
    attempt: int
    failures: int
    start: str
    end: str
    number_fields: str


class Overdue(NamedTuple):
    """A job that has been due for too long; `record` is its public record as JSON."""

    id: str
    attempts: int
    record: bytes


class Overview(NamedTuple):
    """How all jobs stand, and what happened in each of the last minutes."""

    counts: dict[str, int]
    """By status, those without jobs among them."""
    oldest_waiting_s: float
    """For how long the oldest waiting job has waited since its submission; 0: none waits."""
    minutes: list[tuple[int, dict[str, int]]]
    """The epoch's second at which each began, with what happened how often (see `life.lua`); the oldest first."""


def submit(
    jobs: list[tuple[str, str, str, str]], key: str = "", fingerprint: str = "", submitted_by: str = ""
) -> list[str | int]:
    """Submit jobs, given as (id, start, end, number-fields). Return the reply of `submit.lua`."""
    fields = [field for job in jobs for field in job]
    known = (key, fingerprint, IDEMPOTENCY_KEY_SECONDS)
    reply = _run("submit", settings().max_queued_jobs, *known, submitted_by, *fields)
    return [word.decode() if isinstance(word, bytes) else word for word in reply]


def claim(job_id: str, worker_ip: str) -> Claim | str:
    """Claim the named job, or with an empty `job_id` the one that has been due the longest.

    Returns:
        The claim, or the word of `claim.lua` that says why there is none.
    """
    return _claim(_run("claim", job_id, settings().job_lease_seconds, worker_ip))


def renew(held: Claim, progress: str = "", message: str = "") -> str:
    """Renew the lease, and record progress. Return `renewed`, `cancel` or `lost`."""
    reply: bytes = _run("renew", held.id, held.attempt, settings().job_lease_seconds, progress, message)
    return reply.decode()


def finish(
    held: Claim, outcome: str, payload: str = "", delay_s: float = 0, *, next_for: str = ""
) -> tuple[str, Claim | str]:
    """End an attempt; the outcomes are those of `finish.lua`.

    What a worker has done must not get lost because Redis was away for a moment, so this tries for about as long as a
    lease lasts before it raises.

    Args:
        held: the claim.
        outcome: how the attempt ended.
        payload: the result or the error, as JSON.
        delay_s: before the next attempt.
        next_for: a worker-ip, for which the job that has been due the longest is claimed in the same round trip.

    Returns:
        The job's status now, or `refused`; and what `claim` returns, `none` when that was not asked for.
    """
    s = settings()
    calls: list[tuple[Any, ...]] = [
        ("finish", held.id, held.attempt, outcome, payload, s.job_max_attempts, delay_s, s.job_retention_seconds)
    ]
    if next_for:
        calls.append(("claim", "", s.job_lease_seconds, next_for))
    patience = Retry(
        ExponentialBackoff(base=0.05, cap=1),
        int(s.job_lease_seconds) + 5,
        supported_errors=(UnavailableError,),
    )
    status, *claimed = patience.call_with_retry(lambda: _run_all(calls), lambda _: None)
    return status.decode(), _claim(claimed[0]) if claimed else "none"


def cancel(job_id: str) -> tuple[str, str]:
    """Cancel a waiting job or ask for a running one to be. Return its status before (maybe `unknown`) and now."""
    before, *now = _run("cancel", job_id, settings().job_retention_seconds)
    return before.decode(), now[0].decode() if now else ""


def retry(job_id: str) -> tuple[str, int, int]:
    """Submit a failed or cancelled job again; leave any other as it is.

    Returns:
        Its status before (`unknown` for no such job), the attempts so far, and how many jobs are due.
    """
    before, *now = _run("retry", job_id)
    attempts, due = now[1:] or (0, 0)
    return before.decode(), attempts, due


def postpone(job_id: str, delay_s: float) -> bool:
    """Let a waiting job be due no sooner than in `delay_s` seconds. Return whether it waits."""
    return bool(_run("postpone", job_id, delay_s))


def reclaim(error: str, most: int = 100) -> list[tuple[str, str]]:
    """Take back the jobs whose lease has run out. Return their ids, each with its status now."""
    s = settings()
    words = [word.decode() for word in _run("reclaim", most, s.job_max_attempts, s.job_retention_seconds, error)]
    return list(zip(words[::2], words[1::2], strict=True))


def purge(most: int = 1000) -> int:
    """Remove ended jobs whose retention is over. Return how many."""
    removed: int = _run("purge", most)
    return removed


def overdue(for_s: float, most: int) -> tuple[int, list[Overdue]]:
    """Return how many jobs wait or run, and those that have been due for longer than `for_s` seconds."""
    open_jobs, *found = _run("overdue", for_s, most)
    return open_jobs, [Overdue(job.decode(), int(attempts), record) for job, attempts, record in found]


def record(job_id: str) -> bytes | None:
    """Return the public record as JSON, or None for no such job."""
    found: bytes | None = _run("record", job_id)
    return found


def page(listing: str, after: str, length: int) -> tuple[bytes, str]:
    """Return records as JSON with commas between them, and where the next page begins (empty: there is none)."""
    records, last = _run("page", listing, after, length)
    return records, last.decode()


def newest(status: str, before: str, length: int) -> tuple[bytes, str]:
    """Return what `page` returns, newest first; an empty `status` means all jobs."""
    records, last = _run("newest", status, before, length)
    return records, last.decode()


def pages(listing: str) -> Iterator[bytes]:
    """Yield a whole list in pieces, each as `page` returns them."""
    after = ""
    while True:
        records, after = page(listing, after, _PAGE)
        yield records
        if not after:
            return


def overview(minutes: int) -> Overview:
    """Return how all jobs stand, and what happened in the last `minutes` minutes, the present one among them."""
    counts, oldest, present, *found = _run("overview", minutes)
    begins = range((present - minutes + 1) * 60, (present + 1) * 60, 60)
    return Overview(_numbers(counts), float(oldest), list(zip(begins, map(_numbers, found), strict=True)))


def _numbers(flat: list[Any]) -> dict[str, int]:
    """Return a reply of names, each followed by its number."""
    return {name.decode(): int(number) for name, number in zip(flat[::2], flat[1::2], strict=True)}


class _Script(NamedTuple):
    text: str
    sha: str


@cache
def _script(name: str) -> _Script:
    folder = Path(__file__).with_name("lua")
    text = (folder / "life.lua").read_text() + (folder / f"{name}.lua").read_text()
    return _Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


_refused_until = 0.0


class _Local(threading.local):
    """Each thread has a connection of its own: a pool's book-keeping costs as much as a whole call without it."""

    def __init__(self) -> None:
        self.connection: Any = _pool().make_connection()


@cache
def _pool() -> redis.ConnectionPool:
    return redis.ConnectionPool.from_url(
        settings().redis_url,
        username=settings().redis_username or None,
        password=settings().redis_password or None,
        socket_connect_timeout=1,
        socket_timeout=1,
        retry=Retry(NoBackoff(), 0),
        driver_info=None,  # saves two round trips on every new connection
    )


@cache
def _local() -> _Local:
    return _Local()


def _claim(reply: Any) -> Claim | str:
    if isinstance(reply, bytes):
        return reply.decode()
    job, attempt, failures, *rest = reply
    return Claim(job.decode(), attempt, failures, *(field.decode() for field in rest))


def _run(name: str, *args: Any) -> Any:
    return _run_all([(name, *args)])[0]


def _run_all(calls: list[tuple[Any, ...]]) -> list[Any]:
    """Run scripts, each given as its name and arguments, in one round trip."""
    commands = [("EVALSHA", _script(name).sha, 0, *args) for name, *args in calls]
    try:
        replies = _call(commands)
        for i, reply in enumerate(replies):
            if isinstance(reply, redis.exceptions.NoScriptError):
                _, replies[i] = _call([("SCRIPT LOAD", _script(calls[i][0]).text), commands[i]])
    except _NO_ANSWER as error:
        raise UnavailableError("The store does not answer. Nothing was lost; try again shortly.") from error
    for reply in replies:
        if isinstance(reply, redis.exceptions.ResponseError):
            if isinstance(reply, _REFUSES_WRITES) or str(reply).startswith(("MISCONF", "NOREPLICAS")):
                raise UnavailableError("The store takes no writes now. Nothing was changed; try later.") from reply
            raise reply
    return replies


def _call(commands: list[tuple[Any, ...]]) -> list[Any]:
    """Return the replies, an error among them as it is. What finds no answer is sent once more."""
    global _refused_until
    if time.monotonic() < _refused_until:
        raise redis.exceptions.ConnectionError("it did not answer a moment ago")
    connection = _local().connection
    try:
        try:
            return _send(connection, commands)
        except _NO_ANSWER:
            return _send(connection, commands)
    except _NO_ANSWER:
        _refused_until = time.monotonic() + REFUSE_SECONDS
        raise


def _send(connection: Any, commands: list[tuple[Any, ...]]) -> list[Any]:
    try:
        connection.send_packed_command(connection.pack_commands(commands))
        return [_reply(connection) for _ in commands]
    except _NO_ANSWER:
        connection.disconnect()
        raise


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.exceptions.ResponseError as error:
        return error
