"""The Lua scripts as a state machine: any operation in any order, compared with a model that is easy to believe.

They run in a real Redis. Only the clock in them is replaced, so that time can jump.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from hypothesis.stateful import run_state_machine_as_test as run

from knative_jobs.runtime.settings import Settings
from knative_jobs.store import lua_scripts, state
from knative_jobs.store.state import Claim, Ended, Filter
from knative_jobs.web import overview
from tests.conftest import Redis, new_job, store_with

LEASE, RETENTION, ATTEMPTS, MAX_QUEUED, DELAY, VISIBILITY, RELEASES = 10, 100, 3, 6, 5, 8, 2
ENDED = {"complete", "failed", "cancelled"}
ANNOUNCED = {"complete", "cancelled"}
STATUSES = ("submitted", "in-progress", "complete", "failed", "cancelled")
OF_KIND = (*STATUSES, "incomplete", "due", "postponed")
KINDS = {"default": "", "other": ".other"}
"""Each kind, and what the names of its keys end with."""
INDEXES = (*(name + end for name in OF_KIND for end in KINDS.values()), "leases", "retention", "outbox")
kinds = strategies.sampled_from(list(KINDS))
keys = strategies.sampled_from(["", "a", "a b"])
submitters = strategies.sampled_from(["", "", "ci", "cli"])
checkpoints = strategies.sampled_from(["", "1", "2"])
OUTCOMES = ["complete", "error", "failed", "cancelled", "released", "continued"]
options = strategies.sampled_from(
    [
        "",
        "",
        "",
        f"delay {DELAY}",
        f"run-at {LEASE}",
        "max-attempts 1",
        f"delay {DELAY} max-attempts 2 retention {LEASE}",
    ]
)
"""What jobs say for themselves; a run-at counts from now on."""


@dataclass
class Job:
    """What the model knows of a job."""

    place: int
    kind: str = "default"
    key: str = ""
    submitted_by: str = ""
    status: str = "submitted"
    attempt: int = 0
    failures: int = 0
    submitted: float = 0
    started: float = 0
    due: float = 0
    lease: float = 0
    removed: float = 0
    outbox: float | None = None
    releases: int = 0
    run_at: float = 0
    max_attempts: int = ATTEMPTS
    retention: float = RETENTION
    postponed: float | None = None
    checkpoint: str | None = None
    got_further: int = 0
    """The last attempt with a newer checkpoint."""
    continued: int = 0
    ended: list[tuple[int, str]] = field(default_factory=list)
    cancel_requested: bool = False
    result: str | None = None


def claim(kind: str, job_id: str, worker: str) -> Claim | str:
    """What a worker of this kind claims."""
    Life.kind = kind
    return state.claim(job_id, worker)


class Life(RuleBasedStateMachine):
    redis: Redis
    max_running = 0
    kind = "default"
    """That of the worker which claims."""
    ids = Bundle("ids")
    claims = Bundle("claims")
    ends = Bundle("ends")

    @initialize(max_running=strategies.sampled_from([0, 1, 2]))
    def begin(self, max_running: int) -> None:
        Life.max_running = max_running
        self.redis.client.flushall()
        self.now = 1_000_000_000.0
        self.jobs: dict[str, Job] = {}
        self.count = 0
        self.tokens: dict[str, int] = {}
        self.totals: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        self.minutes: dict[int, Counter[str]] = {}
        self.seen = 0.0
        self.went_back = False
        self.tick(0)

    @rule(seconds=strategies.sampled_from([0.02, 1, DELAY, LEASE, LEASE + 1, RETENTION + 1]))
    def tick(self, seconds: float) -> None:
        """Never by the millisecond within which jobs of one batch are due at the same time."""
        self.now += seconds
        self.redis.client.set("test.clock", f"{self.now:.6f}")

    @rule(seconds=strategies.sampled_from([2, DELAY, LEASE + 1, RETENTION + 1]))
    def clock_goes_back(self, seconds: float) -> None:
        """Not to a moment at which anything happened, so that the model need not care for microseconds."""
        self.went_back = True
        self.tick(-(seconds - 0.63))

    @rule()
    def follow_clock(self) -> None:
        back = state.follow_clock(VISIBILITY)
        assert back == pytest.approx(max(0, self.seen - self.now) if self.seen - self.now >= 1 else 0, abs=1e-3)
        for job in self.jobs.values() if back else ():
            job.due = max(job.due - back, job.run_at) if job.due > self.now + 1e-3 else job.due
            job.lease = min(job.lease, self.now + LEASE)
            job.removed -= back if job.removed > self.now + RETENTION else 0
            job.outbox = None if job.outbox is None else min(job.outbox, self.now + VISIBILITY)
        self.seen = self.now

    @rule(missing=strategies.sampled_from([*INDEXES[:-1], "by-key", "by-submitter", "kinds", "none"]))
    def lose_an_index(self, missing: str) -> None:
        """What is due, leased or kept for a time is so from now on."""
        self.redis.client.delete(f"jobs.{missing}")
        found = state.check(10_000)
        assert not found.removed
        assert not found.foreign
        for job in self.jobs.values():
            if missing == "due" + KINDS[job.kind]:
                job.due = max(self.now, job.run_at)
            elif missing == "postponed" + KINDS[job.kind]:
                job.postponed = None
            elif missing == "leases":
                job.lease = self.now + LEASE
            elif missing == "retention" and job.status in ENDED:
                job.removed = self.now + job.retention

    @rule(job_id=consumes(ids))
    def lose_a_record(self, job_id: str) -> None:
        if job_id in self.jobs:
            self.redis.client.delete(f"job.{job_id}")
            assert state.record(job_id) is None
            lost = self.jobs.pop(job_id)
            self.tokens.pop(job_id, None)
            self.claimed_the_oldest(lost.kind, claim(lost.kind, job_id, "A"), running=lost.status == "in progress")
            assert state.check(10_000).removed == [job_id]
            assert state.check(10_000) == ([], [], [])

    @rule(
        target=ids,
        batch=strategies.lists(strategies.tuples(kinds, options, keys), min_size=1, max_size=3),
        submitter=submitters,
    )
    def submit(self, batch: list[tuple[str, str, str]], submitter: str) -> Any:
        jobs, wait = [], Counter[str]()
        for place, (kind, given, key) in enumerate(batch, self.count):
            says = dict(zip(given.split()[::2], map(int, given.split()[1::2]), strict=True))
            after = says.get("delay", 0) or says.get("run-at", 0)
            jobs.append(Job(place, kind, key, submitter, due=self.now + after, run_at=after and self.now + after))
            jobs[-1].max_attempts = says.get("max-attempts", ATTEMPTS)
            jobs[-1].retention = says.get("retention", RETENTION)
            wait[kind] += not after
        due = {kind: self.due(kind) + wait[kind] for kind in wait}
        new = {f"{job.place:08d}-0000-4000-8000-000000000000": job for job in jobs}
        options = [given.replace(f"run-at {LEASE}", f"run-at {self.now + LEASE:.6f}") for _, given, _ in batch]
        submitted = max(self.now, max((job.submitted for job in self.jobs.values()), default=0))
        reply = state.submit(
            [
                new_job(i, kind=job.kind, options=given, key=job.key)
                for (i, job), given in zip(new.items(), options, strict=True)
            ],
            submitted_by=submitter,
        )
        if any(number > MAX_QUEUED and wait[kind] for kind, number in due.items()):
            assert reply.word == "full"
            return multiple()
        assert (reply.word, reply.due) == ("submitted", due)
        run_at = {i: job.run_at for i, job in new.items() if job.run_at}
        assert {i: float(at) for i, at in reply.run_at.items()} == pytest.approx(run_at, abs=1e-5)
        for job in jobs:
            job.submitted = submitted
            self.happened(job.kind, "submitted")
        self.count += len(jobs)
        self.jobs |= new
        return multiple(*new)

    @rule(kind=kinds)
    def submit_for_a_time_that_is_over(self, kind: str) -> None:
        new = [new_job(f"{n:08d}-0000-4000-8000-00000000000f", kind=kind) for n in range(2)]
        reply = state.submit([new[0], new[1]._replace(options=f"run-at {self.now:.6f}")])
        assert (reply.word, reply.past) == ("past", 1)

    def due(self, kind: str) -> int:
        waiting = [job for job in self.jobs.values() if (job.kind, job.status) == (kind, "submitted")]
        return sum(job.due <= self.now + 1e-3 for job in waiting)

    def number(self, kind: str, status: str) -> int:
        return sum((job.kind, job.status) == (kind, status) for job in self.jobs.values())

    @rule(job_id=ids)
    def submit_the_same_again(self, job_id: str) -> None:
        if job_id in self.jobs:
            assert state.submit([new_job(job_id, kind=self.jobs[job_id].kind)]).word == "submitted"

    @rule(target=claims, kind=kinds, job_id=ids, worker=strategies.sampled_from("AB"))
    def claim(self, kind: str, job_id: str, worker: str) -> Any:
        job = self.jobs.get(job_id)
        if job and (job.kind, job.status) != (kind, "submitted"):
            self.happened(job.kind, "duplicates")
        held = claim(kind, job_id, worker)
        if held == "full":
            return self.claimed_the_oldest(kind, held)
        if isinstance(held, Claim) and held.id == job_id:
            assert job
            assert (job.kind, job.status) == (kind, "submitted")
            assert job.due < self.now + 1e-3
            return self.claimed(held)
        assert not (job and (job.kind, job.status) == (kind, "submitted") and job.due < self.now - 1e-3), (
            "a named job that is due comes first"
        )
        return self.claimed_the_oldest(kind, held)

    @rule(target=claims, kind=kinds, worker=strategies.sampled_from("AB"))
    def claim_the_oldest(self, kind: str, worker: str) -> Any:
        return self.claimed_the_oldest(kind, claim(kind, "", worker))

    def claimed_the_oldest(self, kind: str, held: Claim | str, running: int = 0) -> Any:
        """Compare a claim with the model, where so many jobs more than in the model count as in progress."""
        running += self.number(kind, "in progress")
        assert (held == "full") == (0 < self.max_running <= running)
        if held == "full":
            return multiple()
        waiting = {i: job.due for i, job in self.jobs.items() if (job.kind, job.status) == (kind, "submitted")}
        due = {i: when for i, when in waiting.items() if when < self.now + 1e-3}
        if isinstance(held, str):
            assert held == "none"
            assert all(abs(when - self.now) < 1e-3 for when in due.values())
            return multiple()
        assert due[held.id] <= min(due.values()) + 1e-3
        return self.claimed(held)

    def claimed(self, held: Claim) -> Claim:
        job = self.jobs[held.id]
        assert self.now >= job.run_at - 1e-6, "never early"
        assert held.attempt == job.attempt + 1
        assert held.attempt > self.tokens.get(held.id, 0), "a token is given out once"
        assert held.failures == job.failures
        assert held.checkpoint == (job.checkpoint or "")
        self.tokens[held.id] = held.attempt
        job.status, job.attempt, job.lease = "in progress", held.attempt, self.now + LEASE
        job.started = self.now
        job.postponed = None
        self.happened(job.kind, "started")
        if job.attempt > 1:
            self.happened(job.kind, "restarted")
        else:
            self.happened(job.kind, "waited.micros", round(max(0, self.now - max(job.submitted, job.run_at)), 3) * 1e6)
        return held

    def kind_of(self, held: Claim) -> str:
        return self.jobs[held.id].kind if held.id in self.jobs else "default"

    def holds(self, held: Claim) -> Job | None:
        job = self.jobs.get(held.id)
        return job if job and (job.status, job.attempt) == ("in progress", held.attempt) else None

    def keep(self, job: Job, checkpoint: str) -> None:
        if checkpoint and checkpoint != job.checkpoint:
            job.checkpoint, job.got_further = checkpoint, job.attempt

    @rule(held=claims, progress=strategies.sampled_from(["", "0.5"]), checkpoint=checkpoints)
    def renew(self, held: Claim, progress: str, checkpoint: str) -> None:
        word = state.renew(held, progress, checkpoint=checkpoint)
        if job := self.holds(held):
            job.lease = self.now + LEASE
            self.keep(job, checkpoint)
            assert word == ("cancel" if job.cancel_requested else "renewed")
        else:
            assert word == "lost"

    @rule(held=claims, outcome=strategies.sampled_from(OUTCOMES), checkpoint=checkpoints)
    def finish(self, held: Claim, outcome: str, checkpoint: str) -> None:
        job = self.holds(held)
        before = self.redis.record(held.id)
        payload = f'"{held.attempt}"'
        status, _ = state.finish(held, outcome, payload, DELAY, checkpoint)
        if job and outcome != "complete":
            self.keep(job, checkpoint)
        if job is None:
            assert self.redis.record(held.id) == before, "a zombie changes nothing"
            assert status == "refused" or status == before["status"]
            self.happened(self.kind_of(held), "late-finishes", status == "refused")
        elif outcome == "complete":
            job.result = payload
            self.end(job, "complete")
        elif outcome == "cancelled" or (outcome in ("released", "continued") and job.cancel_requested):
            job.ended.append((job.attempt, "cancelled"))
            self.end(job, "cancelled")
        elif outcome == "continued" and job.got_further == job.attempt:
            job.continued += 1
            job.failures = job.releases = 0
            self.wait(job, self.now)
            self.happened(job.kind, "continued")
        elif outcome == "released" and job.releases < RELEASES:
            job.releases += 1
            job.ended.append((job.attempt, "released"))
            self.wait(job, self.now)
        else:
            job.ended.append((job.attempt, "HandedBack" if outcome == "released" else "error"))
            self.fail(job, DELAY, final=outcome == "failed")
        assert job is None or status == job.status

    @rule(held=consumes(claims))
    def finish_twice_after_a_lost_answer(self, held: Claim) -> None:
        first, _ = state.finish(held, "complete", "1")
        if job := self.holds(held):
            job.result = "1"
            self.end(job, "complete")
            assert first == "complete"
        assert state.finish(held, "complete", "1")[0] == first
        self.happened(self.kind_of(held), "late-finishes", 2 * (first == "refused"))

    @rule(target=claims, held=claims)
    def hang(self, held: Claim) -> Any:
        """The worker is not heard of for its lease, another claims the job; the claim of the first stays in use."""
        self.tick(LEASE + 1)
        self.reclaim()
        return self.claim(held.kind, held.id, "B")

    @rule(job_id=ids)
    def cancel(self, job_id: str) -> None:
        job = self.jobs.get(job_id)
        before, now = state.cancel(job_id, "")
        if job is None:
            assert before == "unknown"
            return
        assert before == job.status
        self.cancelled(job)
        assert now == job.status

    def cancelled(self, job: Job) -> None:
        if job.status == "submitted":
            self.end(job, "cancelled")
        elif job.status == "in progress":
            job.cancel_requested = True

    @rule(job_id=ids)
    def retry(self, job_id: str) -> None:
        job = self.jobs.get(job_id)
        before, attempts, kind, due, due_at = state.retry(job_id, "")
        assert before == (job.status if job else "unknown")
        if job and job.status in ("failed", "cancelled"):
            assert (attempts, kind) == (job.attempt, job.kind)
            self.retried(job)
            assert (due, due_at) == (self.due(kind), pytest.approx(job.due * (job.due > self.now), abs=1e-3))

    def retried(self, job: Job) -> None:
        job.failures, job.cancel_requested, job.removed, job.outbox = 0, False, 0, None
        job.releases = 0
        self.wait(job, max(self.now, job.run_at))
        self.happened(job.kind, "retried")

    @rule(
        action=strategies.sampled_from(["retry", "cancel"]),
        kind=strategies.sampled_from(["", *KINDS]),
        key=keys,
        submitter=submitters,
    )
    def redo(self, action: str, kind: str, key: str, submitter: str) -> None:
        """A bulk operation: all jobs that are asked for are changed as each by itself would be."""
        statuses = ("failed", "cancelled") if action == "retry" else ("submitted", "in progress")
        asked = Filter(",".join(statuses), kind, submitter, key)
        named = [
            job
            for job in self.jobs.values()
            if job.status in statuses and kind in ("", job.kind)
            if submitter in ("", job.submitted_by) and key in ("", job.key)
        ]
        assert state.count(asked)[0] == len(named)
        assert state.redo(asked, action, "ci", "") == (len(named), "", False)
        for job in named:
            (self.retried if action == "retry" else self.cancelled)(job)

    @rule(job_id=ids)
    def delete(self, job_id: str) -> None:
        job = self.jobs.get(job_id)
        assert state.delete(job_id) == (job.status if job else "unknown")
        if job and job.status in ENDED:
            del self.jobs[job_id]
            self.tokens.pop(job_id, None)
            assert not self.redis.client.exists(f"job.{job_id}")
            assert state.check(10_000) == ([], [], []), "no index has it any more"

    @rule(job_id=ids, delay=strategies.sampled_from([0.5, DELAY]))
    def postpone(self, job_id: str, delay: float) -> None:
        job = self.jobs.get(job_id)
        waits = state.postpone(job_id, delay)
        assert waits == bool(job and job.status == "submitted")
        if job and waits:
            job.postponed = job.due if job.postponed is None else job.postponed
            job.due = max(job.due, self.now + delay)

    @rule()
    def reclaim(self) -> None:
        taken = {job.id: job.status for job in state.reclaim('{"type": "LeaseExpired"}')}
        for job_id, job in self.jobs.items():
            if job.status == "in progress" and job.lease <= self.now - 1e-3:
                assert job_id in taken
            if job_id in taken:
                assert job.status == "in progress"
                assert job.lease <= self.now + 1e-3, "never before its lease is over"
                self.happened(job.kind, "lease-losses")
                job.ended.append((job.attempt, "LeaseExpired"))
                self.fail(job, 0)
                assert taken[job_id] == job.status

    @rule(target=ends, most=strategies.integers(1, 3))
    def outbox_take(self, most: int) -> Any:
        due = {i: job.outbox for i, job in self.jobs.items() if job.outbox is not None and job.outbox <= self.now}
        taken = state.outbox_take(most, VISIBILITY)
        assert len(taken) <= min(most, len(due))
        assert len(taken) == most or all(abs(due[i] - self.now) < 1e-3 for i in due.keys() - {e.id for e in taken})
        for end in taken:
            job, record = self.jobs[end.id], self.redis.record(end.id)
            assert (end.kind, end.status, end.finished_at) == (job.kind, job.status, record["finished-at"])
            assert f'"status":"{job.status}"' in end.record.decode()
            job.outbox = self.now + VISIBILITY
        return multiple(*taken)

    @rule(end=ends)
    def outbox_acknowledge(self, end: Ended) -> None:
        state.outbox_acknowledge([end])
        job = self.jobs.get(end.id)
        if job and self.redis.record(end.id).get("finished-at") == end.finished_at:
            job.outbox = None

    @rule(end=ends)
    def announced_late(self, end: Ended) -> None:
        """The job was retried and has ended once more when its first end is said to be announced."""
        self.tick(0.02)
        self.retry(end.id)
        self.cancel(end.id)
        self.outbox_acknowledge(end)

    @rule()
    def purge(self) -> None:
        state.purge()
        for job_id, job in list(self.jobs.items()):
            if job.removed and job.removed <= self.now - 1e-3:
                assert not self.redis.record(job_id)
            if not self.redis.record(job_id):
                assert job.status in ENDED
                assert job.removed <= self.now + 1e-3
                del self.jobs[job_id]
                self.tokens.pop(job_id, None)

    def fail(self, job: Job, delay: float, *, final: bool = False) -> None:
        if job.cancel_requested:
            self.end(job, "cancelled")
            return
        job.failures += 1
        if final or job.failures >= job.max_attempts:
            self.end(job, "failed")
        else:
            self.wait(job, self.now + delay)
            self.happened(job.kind, "retried")

    def wait(self, job: Job, due: float) -> None:
        job.status, job.due, job.lease = "submitted", due, 0

    def end(self, job: Job, status: str) -> None:
        job.status, job.removed = status, self.now + job.retention
        job.postponed = None
        job.outbox = self.now if status in ANNOUNCED else None
        if status == "complete":
            job.checkpoint = None
        self.happened(job.kind, status)
        if status == "complete":
            self.happened(job.kind, "ran.micros", round(max(0, self.now - job.started), 3) * 1e6)

    def happened(self, kind: str, what: str, n: float = 1) -> None:
        self.totals[kind][what] += round(n)
        self.minutes.setdefault(int(self.now // 60) * 60, Counter())[what] += round(n)

    @invariant()
    def redis_is_as_the_model(self) -> None:
        found, records = self.read()
        by_status = {(kind, status): list(found[status + end]) for kind, end in KINDS.items() for status in STATUSES}
        assert sorted(i for ids in by_status.values() for i in ids) == sorted(self.jobs), "in exactly one status set"
        for job_id, job in self.jobs.items():
            record = records[job_id]
            assert record["status"] == job.status
            assert job_id in by_status[job.kind, job.status.replace(" ", "-")]
            assert int(record.get("attempt", 0)) == job.attempt
            assert int(record.get("failures", 0)) == job.failures
            assert int(record.get("releases", 0)) == job.releases
            assert int(record.get("continued", 0)) == job.continued
            assert record.get("checkpoint") == job.checkpoint
            told = [(end["attempt"], end["why"]) for end in json.loads(record.get("attempts-ended", "[]"))]
            assert told == job.ended[-10:]
            assert record.get("result") == job.result
            assert ("finished-at" in record) == (job.status in ENDED)
            assert ("cancel-requested-at" in record) == (job.cancel_requested and job.status != "complete")
        scores = {
            **{
                f"due{end}": {i: j.due for i, j in self.jobs.items() if (j.kind, j.status) == (kind, "submitted")}
                for kind, end in KINDS.items()
            },
            **{
                f"postponed{end}": {
                    i: j.postponed for i, j in self.jobs.items() if j.kind == kind and j.postponed is not None
                }
                for kind, end in KINDS.items()
            },
            "leases": {i: job.lease for i, job in self.jobs.items() if job.status == "in progress"},
            "retention": {i: job.removed for i, job in self.jobs.items() if job.status in ENDED},
            "outbox": {i: job.outbox for i, job in self.jobs.items() if job.outbox is not None},
        }
        for index in scores:
            assert found[index] == pytest.approx(scores[index], abs=1e-3)
        in_order = sorted(self.jobs, key=lambda i: self.jobs[i].place)
        complete = [i for i in in_order if self.jobs[i].status == "complete"]
        incomplete = [i for i in in_order if self.jobs[i].status != "complete"]
        for kind, end in KINDS.items():
            assert list(found[f"incomplete{end}"]) == [i for i in incomplete if self.jobs[i].kind == kind]
            assert by_status[kind, "complete"] == [i for i in complete if self.jobs[i].kind == kind]
        assert self.listed("incomplete") == incomplete
        assert self.listed("complete") == complete

    @rule(
        listing=strategies.sampled_from(["", "incomplete", *(status.replace("-", " ") for status in STATUSES)]),
        kind=strategies.sampled_from(["", *KINDS]),
        submitter=submitters,
        key=keys,
        first=strategies.integers(0, 5),
        last=strategies.integers(0, 5),
        order=strategies.sampled_from(["oldest", "newest"]),
    )
    def find(self, listing: str, kind: str, submitter: str, key: str, first: int, last: int, order: str) -> None:
        """Find jobs by all that can be asked for, from the first-oldest job to before the last-oldest one."""
        found = self.listed("")
        times = [json.loads(state.record(job_id) or b"")["submitted-at"] for job_id in found]
        since, before = (f"{times[n]:.6f}" if n < len(times) else "" for n in (first, last))
        expected = [
            job_id
            for n, job_id in enumerate(found)
            for job in [self.jobs[job_id]]
            if listing in ("", job.status) or (listing == "incomplete" and job.status != "complete")
            if kind in ("", job.kind) and submitter in ("", job.submitted_by) and key in ("", job.key)
            if (not since or n >= first) and (not before or n < last)
        ]
        asked = Filter(listing, kind, submitter, key, since, before, order)
        assert self.listed(asked) == (expected if order == "oldest" else expected[::-1])

    def listed(self, asked: str | Filter) -> list[str]:
        """The ids of a list, or of the jobs that are asked for, read in pages of two."""
        asked = asked if isinstance(asked, Filter) else Filter(asked)
        ids, after = [], ""
        while True:
            records, after = state.page(asked, after, 2)
            ids += [record["id"] for record in json.loads(b"[%b]" % records)]
            if not after:
                return ids

    def read(self) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, str]]]:
        """Each index with its scores, and the record of each job of the model, in one round trip."""
        with self.redis.client.pipeline(transaction=False) as pipe:
            for index in INDEXES:
                pipe.zrange(f"jobs.{index}", 0, -1, withscores=True)
            for job_id in self.jobs:
                pipe.hgetall(f"job.{job_id}")
            replies = pipe.execute()
        found = {index: dict(reply) for index, reply in zip(INDEXES, replies, strict=False)}
        return found, dict(zip(self.jobs, replies[len(INDEXES) :], strict=True))

    def teardown(self) -> None:
        """At the end, what was counted is what happened."""
        counted = {kind: Counter[str]() for kind in KINDS}
        for standing, _ in state.overview(0, "").kinds:
            waiting = [job for job in self.jobs.values() if (job.kind, job.status) == (standing.kind, "submitted")]
            since = [time for job in waiting for time in (job.due, job.postponed) if time is not None]
            assert standing.oldest_waiting_s == pytest.approx(max(0, self.now - min([*since, self.now])), abs=2e-3)
            assert standing.delayed == len(waiting) - self.due(standing.kind)
            totals = counted[standing.kind]
            totals.update({what: n for what, n in standing.totals.items() if ".le." not in what})
            for what in ("waited.micros", "ran.micros"):  # submissions at one moment are some microseconds apart
                totals[what] = round(totals[what], -3)
        assert counted == self.totals
        for minute in json.loads(overview.as_json(""))["minutes"]:
            assert min(minute.values()) >= 0
            if self.went_back:  # the snapshot of a minute that came twice is of the first time
                continue
            happened = self.minutes.get(minute.pop("at"), Counter())
            assert minute.pop("waited") == pytest.approx(happened["waited.micros"] / 1e6, abs=1e-3)
            first = happened["started"] - happened["restarted"]
            assert minute == {what: happened[what] for what in minute} | {"started": first}
        assert all(7000 < self.redis.client.ttl(key) <= 7200 for key in self.redis.client.scan_iter("jobs.minute.*"))


@pytest.fixture
def clock_that_jumps(store: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings_ = Settings(
        redis_url=store.url,
        redis_username="admin",  # the clock is a key of its own
        redis_password=store.passwords["admin"],
        job_lease_seconds=LEASE,
        job_retention_seconds=RETENTION,
        job_max_attempts=ATTEMPTS,
        max_queued_jobs=MAX_QUEUED,
        job_events=frozenset(ANNOUNCED),
        job_kinds=tuple(KINDS),
        k_sink="http://broker",
    )
    real: Callable[[str], Any] = lua_scripts.script.__wrapped__

    def with_test_clock(name: str) -> Any:
        text = real(name).text.replace("redis.call('TIME')", "{redis.call('GET', 'test.clock'), 0}")
        return lua_scripts.Script(text, str(store.client.script_load(text)))

    loaded: dict[str, Any] = {}
    monkeypatch.setattr(state, "MAX_RELEASES", RELEASES)
    monkeypatch.setattr(lua_scripts, "script", lambda name: loaded.setdefault(name, with_test_clock(name)))
    Life.redis = store
    with store_with(lambda: replace(settings_, job_max_running=Life.max_running, job_kind=Life.kind), monkeypatch):
        yield


@pytest.mark.timeout(900)
def test_any_order_of_operations_keeps_the_promises(clock_that_jumps: None) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    run(Life, settings=settings(max_examples=150, stateful_step_count=40, suppress_health_check=checks))
