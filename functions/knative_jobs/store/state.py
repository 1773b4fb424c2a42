"""The state of all jobs, in Redis: a function for each script of `lua/`.

Every change is one Lua script (`lua/prelude.lua` names the keys), so it happens as a whole or not at all.

All functions raise UnavailableError when Redis is away or takes no writes; `submit`, `cancel` and `retry` also raise
UnconfirmedError when too few replicas have what they wrote.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

from knative_jobs.runtime import job_kind
from knative_jobs.runtime.errors import UnavailableError, UnconfirmedError
from knative_jobs.runtime.settings import settings
from knative_jobs.store.connection import run, run_all

IDEMPOTENCY_KEY_SECONDS = 24 * 3600
MAX_RELEASES = 10
"""So often a job may be handed back because its worker is being stopped. Each time more counts as a failed attempt."""
PURGED_AT_ONCE = 1000
AT_ONCE = 1000
"""The jobs that one step of a bulk operation changes: some 30 milliseconds of Redis's time."""
_HANDED_BACK = json.dumps(
    {
        "type": "HandedBack",
        "message": f"its worker was stopped before the job was done, after {MAX_RELEASES} others; "
        "give workers more WORKER_GRACE_SECONDS, or the job less to do",
    }
)
ABSENT = "absent"
"""In place of the names of number fields: a job has neither start nor end."""
NOTHING_SAID = (b"", 0)
Call = tuple[Any, ...]
"""A script's name and arguments."""
_PAGE = 1000  # records in one reply of Redis: some milliseconds of its time


class Claim(NamedTuple):
    """A worker's hold on one attempt of a job. `attempt` is the fencing token; times are renewed by `renew`."""

    id: str
    attempt: int
    failures: int
    kind: str
    start: str
    end: str
    number_fields: str
    """Which of start and end are JSON numbers; ABSENT: the job has neither."""
    input: str
    """As JSON; empty: the job has none."""
    traceparent: str
    timeout: str
    """The longest that this attempt may take, in seconds, as the job says for itself; empty: it does not say."""
    checkpoint: str
    """What an earlier attempt can be continued from, as JSON; empty: there is none."""


class NewJob(NamedTuple):
    """A job to be submitted. The fields are those of Claim."""

    id: str
    kind: str
    start: str
    end: str
    number_fields: str
    input: str
    options: str
    """`name value` of each option that the job has, with spaces between them, in the words of `submit.lua`."""
    key: str
    """A word of the submitter's own that jobs can be found by; empty: none."""


class Submission(NamedTuple):
    """What a submission came to: `submitted`, `replayed`, `gone`, `reused`, `full`, `past`, as `submit.lua` has it."""

    word: str
    due: dict[str, int]
    """Where it is `submitted`: of each kind in it, how many jobs are due now."""
    known: list[str]
    """Where it is `replayed`: the ids of the jobs that the idempotency key stands for, in their order."""
    run_at: dict[str, str]
    """Of the jobs that wait for a time, by id: that time, in seconds since the epoch."""
    past: int = -1
    """Where it is `past`: the place of the first job whose run-at is over."""


class Filter(NamedTuple):
    """Which jobs are asked for. What is empty does not matter."""

    listing: str = ""
    """A status, or `incomplete`."""
    kind: str = ""
    submitted_by: str = ""
    key: str = ""
    since: str = ""
    """The job was submitted at this time or later, in seconds since the epoch."""
    before: str = ""
    """It was submitted before this time."""
    order: str = "oldest"
    """Which come first: `oldest` or `newest`."""


class Retried(NamedTuple):
    """A job that was to be submitted again. The status before tells whether it has been; it may be `unknown`."""

    before: str
    attempts: int
    kind: str
    due: int
    """How many jobs of its kind are due now."""
    due_at: float
    """When it is due, in seconds since the epoch: at its run-at. 0: now."""


class Operation(NamedTuple):
    """A bulk operation that is a job of its own."""

    held: Claim
    number: int
    """How many jobs it is about, as they were counted when it was submitted."""


class Step(NamedTuple):
    """A step of a bulk operation."""

    done: int
    """How many jobs it has changed; where the operation is a job, how many all steps have changed so far."""
    after: str
    """From where to go on; empty: all is done."""
    cancelled: bool
    """Whether somebody asked for the operation to be cancelled."""


class Log(NamedTuple):
    """What the work of a job has said."""

    status: str
    """That of the job."""
    end: int
    """How many bytes all attempts have said."""
    how: str
    """`begun`: the first part begins with what its attempt has said first; `cut`: after what was dropped; `continued`:
    where the reader was."""
    parts: list[tuple[int, bytes]]
    """The number of the attempt, and what it has said, one after the other."""


class Due(NamedTuple):
    """A job that is due and to be announced; `record` is its public record as JSON."""

    id: str
    kind: str
    attempts: int
    record: bytes


class Standing(NamedTuple):
    """How the jobs of a kind stand, and what happened to them so far."""

    kind: str
    counts: dict[str, int]
    """By status, those without jobs among them."""
    oldest_waiting_s: float
    """For how long the job that is due the longest has been due; 0: none is due."""
    delayed: int
    """How many of those that are submitted are due later: at their run-at, or after a backoff."""
    totals: dict[str, int]
    """How often each thing happened, in the words of `prelude.lua`; also the attempts `started` and jobs `complete`."""


class Overview(NamedTuple):
    """How the jobs stand, and what happened in each of the last minutes."""

    begins: range
    """The seconds of the epoch at which the minutes began, oldest first, the present one among them."""
    kinds: list[tuple[Standing, list[dict[str, int]]]]
    """How each kind stands, and its totals as each of the minutes began: empty when nothing happened in it."""


_SWEPT_AT = "swept-at"
"""The field of the totals that is a time and no number of things."""


class Metrics(NamedTuple):
    """How the jobs stand, what happened so far, and whether Redis can take more."""

    kinds: list[Standing]
    bounds: list[str]
    """The upper bounds of the histograms in `totals`, in seconds, ascending; `+Inf` comes after them."""
    swept_at: int
    """When the sweeper last looked, in seconds since the epoch by Redis's clock. 0: never."""
    memory_bytes: int
    """What Redis uses."""
    memory_limit_bytes: int
    """The most that it may use: `maxmemory`. 0: as much as there is."""
    writable: bool
    """Whether Redis takes writes."""


class Checked(NamedTuple):
    """What `check` found wrong, and has put right."""

    removed: list[str]
    """Ids in the indexes that had no record."""
    mended: list[str]
    """Ids of jobs that were not in all the indexes of their status, or in others."""
    foreign: list[str]
    """Keys of what was set aside, because another than this API had put it under one of its keys."""


class Reclaimed(NamedTuple):
    """A job whose lease had run out, and which status it has now."""

    id: str
    kind: str
    status: str
    traceparent: str


class Ended(NamedTuple):
    """A job that has ended and whose event is to be emitted; `record` is its public record as JSON."""

    id: str
    kind: str
    status: str
    finished_at: str
    record: bytes


def submit(
    jobs: list[NewJob],
    key: str = "",
    fingerprint: str = "",
    submitted_by: str = "",
    traceparent: str = "",
) -> Submission:
    """Submit jobs, all or none."""
    fields = [field for job in jobs for field in job]
    known = (key, fingerprint, IDEMPOTENCY_KEY_SECONDS)
    reply = _run_confirmed(("submit", settings().max_queued_jobs, *known, submitted_by, traceparent, *fields))
    match reply:
        case [b"submitted", run_at, *due]:
            return Submission("submitted", {kind.decode(): n for kind, n in _pairs(due)}, [], _times(run_at))
        case [b"replayed", run_at, *ids]:
            return Submission("replayed", {}, [job.decode() for job in ids], _times(run_at))
        case [b"past", place]:
            return Submission("past", {}, [], {}, place)
        case [word]:
            return Submission(word.decode(), {}, [], {})
    raise UnavailableError(f"The store answered {reply!r}.")


def claim(job_id: str, worker_ip: str, kind: str = "") -> Claim | str:
    """Claim the named job. Where it is not due, or `job_id` is empty, claim the job that has been due the longest.

    Only jobs of this kind are claimed; where it is empty, of the kind JOB_KIND.

    Returns:
        The claim; `none` when no job is due; `full` when JOB_MAX_RUNNING jobs are in progress.
    """
    kind = kind or settings().job_kind
    return _claim(run_all([_claim_call(job_id, worker_ip, kind)], confirmed=True, undo=_release)[0], kind)


def renew(
    held: Claim, progress: str = "", message: str = "", checkpoint: str = "", said: tuple[bytes, int] = NOTHING_SAID
) -> str:
    """Renew the lease, and record progress, a checkpoint, and what the work has said.

    Args:
        held: the claim.
        progress: from 0 to 1; empty: none is reported.
        message: the text with it.
        checkpoint: as JSON; empty: there is no newer one.
        said: a part of what the attempt has said, and how many bytes it had said before.

    Returns:
        `renewed`, `cancel` or `lost`.
    """
    s = settings()
    how = (s.job_lease_seconds, progress, message, checkpoint, *said, s.job_log_bytes)
    reply: bytes = run("renew", held.id, held.attempt, *how)
    return reply.decode()


def finish(
    held: Claim,
    outcome: str,
    payload: str = "",
    delay_s: float = 0,
    checkpoint: str = "",
    said: tuple[bytes, int] = NOTHING_SAID,
    *,
    next_for: str = "",
) -> tuple[str, Claim | str]:
    """End an attempt; the outcomes are those of `finish.lua`.

    What a worker has done must not get lost because Redis was away for a moment, so this tries for about as long as a
    lease lasts before it raises.

    Args:
        held: the claim.
        outcome: how the attempt ended.
        payload: the result or the error, as JSON.
        delay_s: before the next attempt.
        checkpoint: the last one of the attempt, as JSON, if it is not recorded yet.
        said: the last part of what the attempt has said, as `renew` takes it.
        next_for: a worker-ip, for which the job that has been due the longest is claimed in the same round trip.

    Returns:
        The job's status now, or `refused`; and what `claim` returns, `none` when that was not asked for.
    """
    s = settings()
    tries = _patient_tries()
    if outcome == "released":
        payload = _HANDED_BACK
    how = (outcome, payload, s.job_max_attempts, delay_s, *_on_end(), MAX_RELEASES, checkpoint, *said, s.job_log_bytes)
    calls: list[Call] = [("finish", held.id, held.attempt, *how)]
    if next_for:
        calls.append(_claim_call("", next_for, held.kind))
    try:
        status, *claimed = run_all(calls, tries, confirmed=True, undo=_release)
    except UnconfirmedError as error:
        status, *claimed = _insist(calls[0], tries, error)
    if outcome == "continued" and claimed == [b"none"]:
        # A Redis that had to load `finish` first has claimed before the job was due again.
        claimed = run_all(calls[1:], confirmed=True, undo=_release)
    return status.decode(), _claim(claimed[0], held.kind) if claimed else "none"


def cancel(job_id: str, by: str) -> tuple[str, str]:
    """Cancel a waiting job or ask for a running one to be. Return its status before (maybe `unknown`) and now.

    Args:
        job_id: the job.
        by: the name of the caller's token; empty when none was asked for.
    """
    before, *now = _run_confirmed(("cancel", job_id, by, *_on_end()))
    return before.decode(), now[0].decode() if now else ""


def retry(job_id: str, by: str) -> Retried:
    """Submit a failed or cancelled job again; leave any other as it is. `by` is that of `cancel`."""
    before, *now = _run_confirmed(("retry", job_id, by))
    attempts, kind, due, due_at = now[1:] or (0, b"", 0, 0)
    return Retried(before.decode(), attempts, kind.decode(), due, float(due_at))


def delete(job_id: str) -> str:
    """Remove a job that has ended. Return its status as it was, maybe `unknown`; a job that has not ended stays."""
    was: bytes = _run_confirmed(("delete", job_id))
    return was.decode()


def count(asked: Filter) -> tuple[int, str]:
    """Return how many jobs are asked for, without bulk operations; and a time after all that were submitted."""
    found, after, times = 0, "", []
    while True:
        n, reached, now = run("count", *asked, after, job_kind.BULK)
        found, after = found + n, reached.decode()
        times.append(now.decode())
        if not after:
            return found, times[0]


def redo(asked: Filter, action: str, by: str, after: str = "", operation: Operation | None = None) -> Step | None:
    """Retry, or cancel, the next jobs that are asked for, up to AT_ONCE.

    Args:
        asked: the jobs.
        action: `retry` or `cancel`.
        by: the name of the caller's token; empty when none was asked for.
        after: where to go on: what the step before returned; empty: at the beginning.
        operation: the job that this is a step of. It then keeps itself where to go on, and has its lease renewed.

    Returns:
        What was done. None: another has the operation, and nothing was changed.
    """
    of = (operation.held.id, operation.held.attempt) if operation else ("", 0)
    progress = (settings().job_lease_seconds, operation.number if operation else 0)
    how = (*asked, after, AT_ONCE, action, by, *_on_end(), job_kind.BULK, *of, *progress)
    # As `finish`: Redis may be away for a moment. An operation can be asked for a step again, a request must not wait.
    reply = _run_confirmed(("redo", *how), _patient_tries() if operation else 1)
    return None if reply == b"lost" else Step(reply[0], reply[1].decode(), bool(reply[2]))


def postpone(job_id: str, delay_s: float) -> bool:
    """Let a waiting job be due no sooner than in `delay_s` seconds. Return whether it waits."""
    return bool(run("postpone", job_id, delay_s))


def reclaim(error: str, most: int = 100) -> list[Reclaimed]:
    """Take back the jobs whose lease has run out, and return them."""
    retention, announced = _on_end()
    reply = run("reclaim", most, settings().job_max_attempts, retention, error, announced)
    words = [word.decode() for word in reply]
    return [Reclaimed(*job) for job in zip(*(words[place::4] for place in range(4)), strict=True)]


def purge(most: int = PURGED_AT_ONCE) -> int:
    """Remove ended jobs whose retention is over. Return how many; as many as `most`: there may be more."""
    removed: int = run("purge", most)
    return removed


def follow_clock(visibility_s: float) -> float:
    """Notice that Redis's clock went back, and move with it what waits for a time. Return by how many seconds.

    Args:
        visibility_s: the visibility timeout that `outbox_take` is called with.
    """
    s = settings()
    return float(run("clock", s.job_lease_seconds, visibility_s, s.job_retention_seconds))


def check(most: int = 1000) -> Checked:
    """Look at some index entries, further ones at each call, and make the indexes fit the records.

    Args:
        most: how many entries to look at; some 10 microseconds of Redis's time each.
    """
    s = settings()
    reply = run("check", most, s.job_lease_seconds, s.job_retention_seconds, *s.job_kinds)
    return Checked(*([word.decode(errors="replace") for word in words] for words in reply))


def overdue(kinds: Collection[str], for_s: float, most: int) -> tuple[bool, list[Due]]:
    """Return what the sweep is awake for, and the jobs of these kinds whose event is missing.

    Those are the jobs that have been due for over `for_s` seconds, and those that became due at a time: at their
    run-at, or after a backoff.

    Args:
        kinds: the kinds to look at.
        for_s: how long, in seconds.
        most: the most jobs of each kind.

    Returns:
        Whether jobs are due within a minute, run, or have an end that is not announced yet; and those jobs.
    """
    replies = run_all([("overdue", for_s, most, settings().job_max_running, kind) for kind in kinds])
    found = [_due(kind, late) for kind, (_, *late) in zip(kinds, replies, strict=True)]
    return any(reply[0] for reply in replies), list(chain.from_iterable(found))


def announce(kinds: Collection[str], most: int, first_s: float, longest_s: float) -> list[Due]:
    """Choose due jobs to announce to JobSinks, and note that they are announced.

    Args:
        kinds: the kinds whose subscriber is a JobSink.
        most: how many jobs of each kind may be announced and not claimed.
        first_s: a job that nobody claims is chosen again after so many seconds, then at doubling intervals.
        longest_s: the longest of these intervals.
    """
    calls = [("announce", most, first_s, longest_s, settings().job_max_running, kind) for kind in kinds]
    return [due for kind, reply in zip(kinds, run_all(calls), strict=True) for due in _due(kind, reply)]


def count_dropped(events: Mapping[str, int]) -> None:
    """Count events of submitted jobs that were dropped, by the kind of their jobs."""
    run("count_dropped", *chain.from_iterable(events.items()))


def outbox_take(most: int, hidden_for_s: float) -> list[Ended]:
    """Take ends of jobs from the outbox, for whose events nobody else is to care for `hidden_for_s` seconds."""
    reply = run("outbox_take", most, hidden_for_s)
    return [
        Ended(job.decode(), kind.decode(), status.decode(), at.decode(), record)
        for job, kind, status, at, record in reply
    ]


def outbox_acknowledge(ends: Iterable[Ended]) -> None:
    """Remove ends from the outbox: a Broker has their events."""
    run("outbox_acknowledge", *(field for end in ends for field in (end.id, end.finished_at)))


def record(job_id: str) -> bytes | None:
    """Return the public record as JSON, or None for no such job."""
    found: bytes | None = run("record", job_id)
    return found


def log(job_id: str, attempt: str, after: int) -> Log | None:
    """Return what the work has said, as far as it is kept. None: there is no such job.

    Args:
        job_id: the job.
        attempt: the number of one attempt; empty: what all have said.
        after: return what comes after so many bytes.
    """
    reply = run("log", job_id, attempt, after)
    if not reply:
        return None
    status, end, how, parts = reply
    return Log(status.decode(), end, how.decode(), list(_pairs(parts)))


def page(asked: Filter, after: str, length: int) -> tuple[bytes, str]:
    """Return records as JSON with commas between them, and where the next page begins (empty: there is none).

    Args:
        asked: the jobs to return.
        after: where the page begins: what this returned for the page before.
        length: the most records. There may be fewer, or none: where they are long, and where many jobs were looked at.
    """
    records, last = run("page", *asked, after, length)
    return records, last.decode()


def pages(asked: Filter) -> Iterator[bytes]:
    """Yield all the jobs that are asked for in pieces, each as `page` returns them."""
    after = ""
    while True:
        records, after = page(asked, after, _PAGE)
        yield records
        if not after:
            return


def overview(minutes: int, kind: str) -> Overview:
    """Return how the jobs of a kind stand, of all when it is empty, and the last `minutes` minutes."""
    present, *found = run("overview", minutes, kind)
    begins = range((present - minutes + 1) * 60, (present + 1) * 60, 60)
    return Overview(begins, [(_standing(reply[:5]), list(map(_totals, reply[5:]))) for reply in found])


def metrics() -> Metrics:
    """Return how all jobs stand, what happened so far, and whether Redis can take more."""
    bounds, memory, limit, writable, *found = run("metrics")
    swept_at = max(_numbers(totals).get(_SWEPT_AT, 0) for *_, totals in found)
    return Metrics(list(map(_standing, found)), bounds.decode().split(), swept_at, memory, limit, bool(writable))


def _standing(reply: list[Any]) -> Standing:
    kind, counts, oldest, delayed, totals = reply
    return Standing(kind.decode(), _numbers(counts), float(oldest), delayed, _totals(totals))


def _totals(flat: list[Any]) -> dict[str, int]:
    """Return a reply of totals. What a histogram has is not counted a second time, so it is summed here."""
    found = _numbers(flat)
    found.pop(_SWEPT_AT, None)
    waited, ran = (sum(n for what, n in found.items() if what.startswith(f"{name}.le.")) for name in ("waited", "ran"))
    return found and found | {"started": waited + found.get("restarted", 0), "complete": ran}


def _numbers(flat: list[Any]) -> dict[str, int]:
    """Return a reply of names, each followed by its number."""
    return {name.decode(errors="replace"): int(number) for name, number in _pairs(flat) if _is_count(number)}


def _times(flat: list[Any]) -> dict[str, str]:
    return {job.decode(): time.decode() for job, time in _pairs(flat)}


def _pairs(flat: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _is_count(number: int | bytes) -> bool:
    """Tell a count from what somebody else has put into its place."""
    return isinstance(number, int) or (number.isdigit() and len(number) < 20)


def _patient_tries() -> int:
    """Return how often to try what must not get lost: for about as long as a lease lasts."""
    return int(settings().job_lease_seconds) + 5


def _run_confirmed(call: Call, tries: int = 1) -> Any:
    """Run a script and have it confirmed, unless its reply says that it refused.

    That there is no such job must be confirmed too: a primary that was cut off, and does not know yet that another was
    promoted, lacks the jobs that came since.
    """
    try:
        return run_all([call], tries, confirmed=True)[0]
    except UnconfirmedError as error:
        (reply,) = error.replies
        word = reply if isinstance(reply, bytes) else reply[0]
        if word in (b"full", b"reused", b"past", b"lost"):
            return reply
        if word == b"unknown":
            why = (
                "The store has no such job, and too few replicas to tell whether that is up to date; try again shortly."
            )
            raise UnavailableError(why) from error
        raise


def _insist(call: Call, tries: int, error: UnconfirmedError) -> list[Any]:
    """Run a script again until it is confirmed. What is not confirmed in the end may be lost, and is done once more."""
    for _ in range(tries):
        try:
            return run_all([call], tries, confirmed=True)
        except UnconfirmedError as another:
            error = another
    return error.replies[:1]


def _release(replies: list[Any]) -> list[Call]:
    """Return what hands back the job that the last of these replies claims.

    A claim that is not confirmed is given up: after a failover another may get the same job with the same attempt.
    """
    held = _claim(replies[-1], "") if isinstance(replies[-1], list) else None
    how = (settings().job_max_attempts, 0, *_on_end(), MAX_RELEASES, "", *NOTHING_SAID, 0)
    return [("finish", held.id, held.attempt, "released", _HANDED_BACK, *how)] if isinstance(held, Claim) else []


def _on_end() -> tuple[float, str]:
    """Return for how long a job that ends is kept, and the statuses that are announced; none without a Broker."""
    s = settings()
    return s.job_retention_seconds, " ".join(sorted(s.job_events)) if s.k_sink else ""


def _claim_call(job_id: str, worker_ip: str, kind: str) -> Call:
    s = settings()
    return "claim", job_id, s.job_lease_seconds, worker_ip, s.job_max_running, kind


def _claim(reply: Any, kind: str) -> Claim | str:
    if isinstance(reply, bytes):
        return reply.decode()
    job, attempt, failures, *rest = reply
    return Claim(job.decode(), attempt, failures, kind, *(field.decode() for field in rest))


def _due(kind: str, reply: Iterable[Any]) -> list[Due]:
    return [Due(job.decode(), kind, int(attempts), record) for job, attempts, record in reply]
