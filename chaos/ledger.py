"""The ledger: what was promised and seen during the run, against what Redis holds at the end."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import redis

from chaos.clients import Book, Submission
from chaos.job_kinds import ALL, kind_of
from chaos.system import LOG
from chaos.witness import Record
from chaos.work import BEGUN, EFFECTS
from knative_jobs.runtime.job_status import ENDED, Status
from knative_jobs.runtime.settings import DEFAULT_KIND

ALWAYS_THERE = {"id", "status", "start", "end", "submitted-at"}
THERE_WHEN: dict[str, set[str]] = {
    Status.IN_PROGRESS: {"attempt", "worker-ip", "started-at"},
    Status.COMPLETE: {"attempt", "worker-ip", "started-at", "finished-at", "result"},
    Status.FAILED: {"attempt", "worker-ip", "started-at", "finished-at", "error", "failures"},
    Status.CANCELLED: {"finished-at"},
}
MAY_BE_LOST = ("missing", "doubled", "split", "not cancelled")
"""What a Redis that loses its last writes may lead to."""
_OUTCOME = re.compile(r"job (\S+) attempt (\d+): (complete|late finish refused)")

Attempts = Counter[tuple[str, int]]


class Store(NamedTuple):
    """All that Redis holds."""

    records: dict[str, Record]
    indexes: dict[str, dict[str, float]]


@dataclass
class Ledger:
    """What a run came to. Each entry of `wrong` and of `lost` says which job, and what is the matter with it.

    missing        it was acknowledged, and is not there
    stuck          it has not ended
    doubled        a result was recorded twice: it changed after the end, is not that of the current attempt, was
                   accepted twice by the workers' own words, or two attempts had one token
    split          one submission, or all with one idempotency key, made other than the jobs that it asked for
    not cancelled  its cancellation was acknowledged
    indexes        it is not in exactly the sets of its status
    impossible     no job can have this record
    undocumented   the API does not have this answer
    """

    counts: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    attempts_begun: dict[str, int] = field(default_factory=dict)
    """How many were the first of their job, the second, and so on."""
    effects_per_job: dict[str, int] = field(default_factory=dict)
    """How many jobs had one effect, two, and so on. Work is done at least once; its result is recorded once."""
    wrong: dict[str, list[str]] = field(default_factory=dict)
    lost: dict[str, list[str]] = field(default_factory=dict)


def read(client: redis.Redis) -> Store:
    """Read every record and every index."""
    keys = list(client.scan_iter("job.*", count=1000))
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hgetall(key)
        records = {key.removeprefix("job."): record for key, record in zip(keys, pipeline.execute(), strict=True)}
    own = [*(status.replace(" ", "-") for status in Status), "incomplete", "due"]
    names = [*(name + end for name in own for end in ALL.values()), "leases", "retention"]
    indexes = {}
    for name in names:
        members: Any = client.zrange(f"jobs.{name}", 0, -1, withscores=True)
        indexes[name] = dict(members)
    return Store(records, indexes)


def settle(book: Book, seen: dict[tuple[str, str], Record], store: Store, folder: Path, may_lose: bool) -> Ledger:
    """Compare everything.

    Args:
        book: what the clients were told.
        seen: the records of ended jobs as they were first seen, by id and status.
        store: what Redis holds at the end.
        folder: where the work's files and the log are.
        may_lose: whether Redis was allowed to lose its last writes.
    """
    begun, effects = _attempts(folder / BEGUN), _attempts(folder / EFFECTS)
    log = _OUTCOME.findall((folder / LOG).read_text(errors="replace"))
    accepted = Counter(job_id for job_id, _, outcome in log if outcome == "complete")
    records, acknowledged = store.records, set(book.acknowledged())
    wrong = {
        "missing": [job_id for job_id in sorted(acknowledged) if job_id not in records],
        "stuck": [f"{i} is {r.get('status')}" for i, r in records.items() if r.get("status") not in ENDED],
        "doubled": [*_changed(book, seen, records), *_twice(records, begun, accepted)],
        "split": list(_split(book, records)),
        "not cancelled": [
            f"{job_id} is {records[job_id].get('status')}"
            for job_id in book.cancelled - book.retried
            if job_id in records and records[job_id].get("status") != "cancelled"
        ],
        "indexes": list(index_faults(store)),
        "impossible": [*impossible(store), *_effects_missing(records, effects)],
        "undocumented": [answer for answer in book.undocumented if not (may_lose and answer.startswith("404 "))],
    }
    return Ledger(
        counts=_counts(book, store, acknowledged)
        | {"late finishes refused": sum(outcome != "complete" for *_, outcome in log)},
        statuses={str(status or "none"): n for status, n in sorted(Counter(book.statuses).items())},
        attempts_begun=_by_number(attempt for _, attempt in begun.elements()),
        effects_per_job=_by_number(_per_job(effects).values()),
        wrong={kind: found for kind, found in wrong.items() if not (may_lose and kind in MAY_BE_LOST)},
        lost={kind: found for kind, found in wrong.items() if may_lose and kind in MAY_BE_LOST},
    )


def index_faults(store: Store) -> Iterator[str]:
    """Yield each disagreement between the indexes and the records: a job is in exactly the sets of its status."""
    expected: dict[str, set[str]] = defaultdict(set)
    for job_id, record in store.records.items():
        status = record.get("status", "")
        own = ALL.get(record.get("kind", DEFAULT_KIND), "")
        expected[status.replace(" ", "-") + own].add(job_id)
        other = {"submitted": f"due{own}", "in progress": "leases"}.get(status, "retention")
        expected[other].add(job_id)
        if status != "complete":
            expected[f"incomplete{own}"].add(job_id)
    for name, members in store.indexes.items():
        for job_id in expected[name] ^ members.keys():
            status = store.records.get(job_id, {}).get("status", "not there")
            yield f"{job_id} is {status}, and {'' if job_id in members else 'not '}in jobs.{name}"
        for job_id in expected[name] & members.keys() if not name.startswith(("due", "leases", "retention")) else ():
            if f"{members[job_id]:.6f}" != store.records[job_id]["submitted-at"]:
                yield f"{job_id} has another place in jobs.{name} than in its record"


def impossible(store: Store) -> Iterator[str]:
    """Yield each record that no job can have."""
    for job_id, record in store.records.items():
        status = record.get("status", "")
        if status not in tuple(Status):
            yield f"{job_id} has the status {status!r}"
        if missing := (ALWAYS_THERE | THERE_WHEN.get(status, set())) - record.keys():
            yield f"{job_id} is {status} and has no {', '.join(sorted(missing))}"
        if record.get("id") != job_id:
            yield f"{job_id} says that it is {record.get('id')}"


def _changed(book: Book, seen: dict[tuple[str, str], Record], records: dict[str, Record]) -> Iterator[str]:
    """Yield the jobs that had ended and changed all the same. Only what has failed or was cancelled can be retried."""
    for (job_id, status), record in seen.items():
        if job_id in records and records[job_id] != record and (status == "complete" or job_id not in book.retried):
            now = records[job_id]
            names = sorted(name for name in record.keys() | now.keys() if record.get(name) != now.get(name))
            changes = "; ".join(f"{name} {record.get(name)} -> {now.get(name)}" for name in names)
            yield f"{job_id} changed after it was {status}: {changes}"


def _twice(records: dict[str, Record], begun: Attempts, accepted: Counter[str]) -> Iterator[str]:
    """Yield the jobs of which two attempts had the same token, or more than the current one was heard."""
    for (job_id, attempt), times in begun.items():
        if times > 1:
            yield f"{job_id} began attempt {attempt} {times} times"
    for job_id, times in accepted.items():
        if times > 1:
            yield f"{job_id} was completed {times} times"
    for job_id, record in records.items():
        if record.get("status") == "complete":
            result = json.loads(record.get("result") or "{}")
            own = record.get("attempt"), job_id, record.get("kind", DEFAULT_KIND)
            if (str(result.get("attempt")), result.get("id"), result.get("kind")) != own:
                yield f"{job_id} is in attempt {record.get('attempt')} and has the result {record.get('result')}"
    for job_id, last in _last(begun).items():
        if job_id in records and int(records[job_id].get("attempt", 0)) < last:
            yield f"{job_id} began attempt {last} and is in attempt {records[job_id].get('attempt')}"


def _split(book: Book, records: dict[str, Record]) -> Iterator[str]:
    """Yield the submissions that made two jobs out of one, a part of a batch, or other jobs than were asked for."""
    by_end: dict[str, list[Record]] = defaultdict(list)
    for record in records.values():
        by_end[record.get("end", "")].append(record)
    for submission in book.submissions:
        name = submission.key or f"the submission of {submission.first_end}"
        found = [by_end.pop(str(submission.first_end + i), []) for i in range(len(submission.starts))]
        if any(ids != submission.answers[0] for ids in submission.answers[1:]):
            yield f"{name} was answered with different jobs"
        if any(len(jobs) > 1 for jobs in found):
            yield f"{name} made the same job twice"
        if any(found) != all(found):
            yield f"{name} made a part of a batch"
        if submission.refused and any(found):
            yield f"{name} was refused and made jobs"
        for start, jobs in zip(submission.starts, found, strict=True):
            if any(job.get("start") != start for job in jobs):
                yield f"{name} made a job with another start"
            if any(job.get("kind", DEFAULT_KIND) != kind_of(int(job["end"])) for job in jobs):
                yield f"{name} made a job of another kind"
    yield from (f"the job with end {end} was never submitted" for end in by_end)


def _effects_missing(records: dict[str, Record], effects: Attempts) -> Iterator[str]:
    for job_id, record in records.items():
        if record.get("status") == "complete" and (job_id, int(record.get("attempt", 0))) not in effects:
            yield f"{job_id} is complete, and its attempt {record.get('attempt')} had no effect"


def _counts(book: Book, store: Store, acknowledged: set[str]) -> dict[str, int]:
    ends = {record.get("end") for record in store.records.values()}
    unknown = [end for s in book.submissions if not (s.answers or s.refused) for end in _ends(s)]
    statuses = Counter(record.get("status") for record in store.records.values())
    return {
        "acknowledged": len(acknowledged),
        "refused": sum(len(s.starts) for s in book.submissions if s.refused),
        "unknown, made": sum(end in ends for end in unknown),
        "unknown, not made": sum(end not in ends for end in unknown),
        "completed": statuses["complete"],
        "failed": statuses["failed"],
        "cancelled": statuses["cancelled"],
    }


def _ends(submission: Submission) -> list[str]:
    return [str(submission.first_end + i) for i in range(len(submission.starts))]


def _attempts(file: Path) -> Attempts:
    lines = (line.split() for line in file.read_text().splitlines()) if file.exists() else ()
    return Counter((job_id, int(attempt)) for job_id, attempt in lines)


def _per_job(attempts: Attempts) -> Counter[str]:
    per_job: Counter[str] = Counter()
    for (job_id, _), times in attempts.items():
        per_job[job_id] += times
    return per_job


def _by_number(numbers: Iterable[int]) -> dict[str, int]:
    return {str(number): times for number, times in sorted(Counter(numbers).items())}


def _last(begun: Attempts) -> dict[str, int]:
    last: dict[str, int] = {}
    for job_id, attempt in begun:
        last[job_id] = max(attempt, last.get(job_id, 0))
    return last
