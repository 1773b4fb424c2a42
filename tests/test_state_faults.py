"""Keys and records that somebody removed or overwrote, and a clock that goes back: no endpoint and no script fails."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from knative_jobs.runtime.settings import Settings
from knative_jobs.store import state
from knative_jobs.store.state import Claim, Filter
from tests.conftest import Redis, Start, new_job, store_with

STATUSES = ("submitted", "in progress", "complete", "failed", "cancelled")
INDEXES = [f"jobs.{status.replace(' ', '-')}" for status in STATUSES] + ["jobs.incomplete"]
SETS = [*INDEXES, "jobs.due", "jobs.leases", "jobs.retention", "jobs.outbox"]
STRINGS = ["jobs.last", "jobs.clock", "jobs.checked"]
FIELDS = [
    "id",
    "status",
    "start",
    "end",
    "submitted-at",
    "started-at",
    "finished-at",
    "attempt",
    "failures",
    "run-at",
    "timeout",
    "checkpoint",
]
FIELDS += [
    "progress",
    "result",
    "error",
    "cancel-requested-at",
    "number-fields",
    "traceparent",
    "worker-ip",
    "max-attempts",
    "retention",
    "continued",
]
BODY = {"start": 1, "end": "2"}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def here(store: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The functions of the store, in this process."""
    access = {"redis_url": store.url, "redis_username": "admin", "redis_password": store.passwords["admin"]}
    given = Settings(**access, k_sink="http://broker", job_max_attempts=2)
    with store_with(lambda: given, monkeypatch):
        yield


@pytest.fixture
def jobs(here: None) -> dict[str, str]:
    """Two jobs of each status, by it and a number."""
    ids = {f"{status} {n}": str(uuid.uuid4()) for status in STATUSES for n in (1, 2)}
    state.submit([new_job(job_id, numbers="start") for job_id in ids.values()], "ab", "cd", "alice", TRACE)
    for name, job_id in ids.items():
        status = name[:-2]
        if status in ("in progress", "complete", "failed"):
            held = state.claim(job_id, "127.0.0.1")
            assert isinstance(held, Claim)
            state.renew(held, "0.5", "half")
            if status != "in progress":
                state.finish(held, status, '{"type":"E","message":""}')
        if status == "cancelled":
            state.cancel(job_id, "alice")
    return ids


def call_everything(endpoint: Start, jobs: dict[str, str]) -> None:
    """Call every endpoint and every script, for each of the jobs; fail on an answer 500, and on one that is no JSON."""
    for path in ("completed_jobs", "incomplete_jobs", "inprogress_jobs", "failed_jobs", "cancelled_jobs"):
        for query in ("", "?limit=1", "?limit=1000"):
            answer = endpoint(path).request("GET", f"/{path}{query}")
            assert answer.status == 200
            listed = answer.json()
            assert all({"id", "status", "start", "end", "submitted-at"} <= job.keys() for job in listed)
    for path in ("/dashboard/overview", "/dashboard/jobs", "/dashboard/jobs?status=failed&limit=1", "/dashboard"):
        assert endpoint("dashboard").request("GET", path).status == 200
    assert endpoint("metrics").request("GET", "/metrics").status == 200
    for name, job_id in jobs.items():
        answers = [endpoint("jobs_status").request("GET", f"/jobs_status?job_id={job_id}&wait=0.01")]
        answers.append(endpoint("job_events").request("GET", f"/job_events?job_id={job_id}", preload_content=False))
        answers.append(endpoint("cancel_job").request("POST", f"/cancel_job?job_id={job_id}"))
        answers.append(endpoint("retry_job").request("POST", f"/retry_job?job_id={job_id}"))
        assert all(answer.status < 500 for answer in answers), name
        answers.pop(1).close()
        assert all(answer.json() for answer in answers)
    assert endpoint("dead_letter").deliver(next(iter(jobs.values()))) == 204
    assert endpoint("jobs").request("POST", "/jobs", body=json.dumps([BODY] * 2)).status == 202
    answer = endpoint("jobs").request("POST", "/jobs", body=json.dumps(BODY), headers={"Idempotency-Key": "k"})
    assert answer.status == 202
    sweep(endpoint)
    assert endpoint("worker", JOB_SECONDS="0").deliver(answer.json()["id"]) == 204
    for job_id in jobs.values():
        held = Claim(job_id, 1, 0, "default", "1", "2", "start", "", "", "", "")
        state.claim(job_id, "127.0.0.1")
        state.renew(held, "0.1", "x")
        state.finish(held, "error", '{"type":"E"}')
        state.postpone(job_id, 0.001)
    state.claim("", "127.0.0.1")
    state.outbox_acknowledge(state.outbox_take(100, 60))
    state.overdue(["default"], 0, 100)
    state.reclaim("{}")
    state.redo(Filter("failed,cancelled", key="k"), "retry", "alice", "")
    state.purge()


def sweep(endpoint: Start) -> None:
    assert endpoint("sweeper").request("POST").status == 204


def a_new_job_is_done(endpoint: Start) -> None:
    job_id = endpoint("jobs").request("POST", "/jobs", body=json.dumps(BODY)).json()["id"]
    assert endpoint("worker", JOB_SECONDS="0").deliver(job_id) == 204
    job = endpoint("jobs_status").request("GET", f"/jobs_status?job_id={job_id}").json()
    assert job["status"] == "complete"
    assert job["start"] == 1
    assert job_id in {job["id"] for job in endpoint("completed_jobs").request("GET").json()}


def the_indexes_fit_the_records(store: Redis) -> None:
    records = {key.removeprefix("job."): store.client.type(key) == "hash" for key in store.client.scan_iter("job.*")}
    status = {job_id: store.record(job_id).get("status") for job_id, is_hash in records.items() if is_hash}
    for index in SETS:
        wanted = {
            "jobs.incomplete": [*STATUSES[:2], *STATUSES[3:]],
            "jobs.due": STATUSES[:1],
            "jobs.leases": STATUSES[1:2],
            "jobs.retention": STATUSES[2:],
        }.get(index, [index.removeprefix("jobs.").replace("-", " ")])
        if index != "jobs.outbox":
            expected = {job_id for job_id, found in status.items() if found in wanted}
            assert set(store.client.zrange(index, 0, -1)) == expected, index


WRONG: dict[str, Callable[[Any, str], object]] = {
    "removed": lambda client, key: client.delete(key),
    "a string": lambda client, key: client.set(key, "foreign"),
    "a hash": lambda client, key: (client.delete(key), client.hset(key, "foreign", "foreign")),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("key", [*SETS, *STRINGS, "jobs.totals", "jobs.minute", "idempotency"])
def test_a_key_that_is_missing_or_somebody_elses_fails_nothing(
    endpoint: Start, store: Redis, jobs: dict[str, str], key: str, wrong: str
) -> None:
    endpoint("jobs").request("POST", "/jobs", body=json.dumps(BODY), headers={"Idempotency-Key": "k"})
    sweep(endpoint)
    for found in store.client.keys(f"{key}*") if key in ("jobs.minute", "idempotency") else [key]:
        WRONG[wrong](store.client, found)
    call_everything(endpoint, jobs)
    a_new_job_is_done(endpoint)
    sweep(endpoint)
    the_indexes_fit_the_records(store)
    assert set(jobs.values()) <= {key.removeprefix("job.") for key in store.client.scan_iter("job.*")}


@pytest.mark.parametrize("key", SETS)
def test_a_member_of_an_index_that_is_no_job_fails_nothing(
    endpoint: Start, store: Redis, jobs: dict[str, str], key: str
) -> None:
    store.client.zadd(key, {"foreign": 1, "a b": -1, str(uuid.uuid4()): time.time(), "late": "inf", "odd": 1e300})
    call_everything(endpoint, jobs)
    a_new_job_is_done(endpoint)
    sweep(endpoint)
    the_indexes_fit_the_records(store)


@pytest.mark.parametrize("value", ["foreign", "9" * 19])
def test_a_count_that_is_no_number_or_too_high_a_one_begins_anew(
    endpoint: Start, store: Redis, jobs: dict[str, str], value: str
) -> None:
    fields = ("submitted", "waited.le.0.01", "waited.micros", "restarted", "retried", "lease-losses", "foreign")
    store.client.hset("jobs.totals", mapping=dict.fromkeys(fields, value))
    call_everything(endpoint, jobs)
    assert 0 < int(store.client.hget("jobs.totals", "submitted")) < 100


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("status", STATUSES)
def test_a_record_that_is_missing_or_somebody_elses_is_left_out(
    endpoint: Start, store: Redis, jobs: dict[str, str], status: str, wrong: str
) -> None:
    gone, left = (jobs.pop(f"{status} {n}") for n in (1, 2))
    WRONG[wrong](store.client, f"job.{gone}")
    name = {"submitted": "incomplete_jobs", "cancelled": "incomplete_jobs", "in progress": "inprogress_jobs"}
    listing = name.get(status, f"{status.replace('complete', 'completed')}_jobs")
    for query in ("", "?limit=1000"):
        listed = {job["id"] for job in endpoint(listing).request("GET", f"/{listing}{query}").json()}
        assert left in listed
        assert gone not in listed
    seen = {job["id"] for job in endpoint("dashboard").request("GET", "/dashboard/jobs?limit=1000").json()}
    assert left in seen
    assert gone not in seen
    assert endpoint("jobs_status").request("GET", f"/jobs_status?job_id={gone}").status == 404
    call_everything(endpoint, jobs | {"gone": gone})
    a_new_job_is_done(endpoint)
    the_indexes_fit_the_records(store)


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_is_missing_or_somebody_elses_fails_nothing(
    endpoint: Start, store: Redis, jobs: dict[str, str], field: str
) -> None:
    for n, change in enumerate((store.client.hdel, lambda key, name: store.client.hset(key, name, "foreign")), 1):
        for status in STATUSES:
            change(f"job.{jobs[f'{status} {n}']}", field)
    call_everything(endpoint, jobs)
    a_new_job_is_done(endpoint)


def test_the_log_tells_once_of_what_was_wrong(start: Start, store: Redis, jobs: dict[str, str]) -> None:
    sweeper = start("sweeper", SWEEP_SECONDS="0").ready()
    store.client.delete(f"job.{jobs['complete 1']}", "jobs.due")
    store.client.set("jobs.leases", "foreign")
    for _ in range(3):
        assert sweeper.request("POST").status == 204
    log = sweeper.log()
    assert log.count(f"the records of 1 jobs ({jobs['complete 1']}) are gone") == 1
    assert log.count("did not agree") == 1
    assert jobs["submitted 1"] in log
    assert log.count("jobs.foreign.leases") == 1
    assert store.client.get("jobs.foreign.leases") == "foreign", "it is somebody's, and kept"


def test_a_list_of_many_pieces_is_whole_though_all_records_of_a_piece_are_gone(
    endpoint: Start, store: Redis, here: None
) -> None:
    ids = [str(uuid.uuid4()) for _ in range(2500)]
    for begin in range(0, 2500, 500):
        state.submit([new_job(job_id) for job_id in ids[begin : begin + 500]])
    for gone in (ids[:1000], ids[1000:2000]):
        store.client.delete(*(f"job.{job_id}" for job_id in gone))
        left = [job["id"] for job in endpoint("incomplete_jobs").request("GET").json()]
        assert left == [job_id for job_id in ids if store.record(job_id)]


class TestClock:
    """A clock of Redis that was ahead comes back."""

    AHEAD = 3600

    def test_a_new_job_is_due_now_and_the_oldest_waiting_is_right(
        self, endpoint: Start, store: Redis, here: None
    ) -> None:
        store.client.set("jobs.last", int((time.time() + self.AHEAD) * 1e6))
        before = [endpoint("jobs").request("POST", "/jobs", body=json.dumps(BODY)).json()["id"] for _ in range(3)]
        assert all(store.client.zscore("jobs.due", job_id) <= time.time() for job_id in before)
        time.sleep(0.3)
        overview = endpoint("dashboard").request("GET", "/dashboard/overview").json()
        assert 0.3 <= overview["oldest-waiting-seconds"] < 60
        held = state.claim("", "127.0.0.1")
        assert isinstance(held, Claim)
        assert held.id == before[0]

    def test_the_order_of_submission_stays_strict(self, endpoint: Start, store: Redis, here: None) -> None:
        ids = [str(uuid.uuid4()) for _ in range(6)]
        ahead = time.time() + self.AHEAD
        state.submit([new_job(ids[0])])
        for index in ("jobs.submitted", "jobs.incomplete"):  # as it is when it was submitted while the clock was ahead
            store.client.zadd(index, {ids[0]: ahead})
        store.client.hset(f"job.{ids[0]}", "submitted-at", f"{ahead:.6f}")
        store.client.set("jobs.last", int(ahead * 1e6))
        for job_id in ids[1:3]:
            state.submit([new_job(job_id)])
        state.submit([new_job(job_id) for job_id in ids[3:]])
        listed = endpoint("incomplete_jobs").request("GET").json()
        assert [job["id"] for job in listed] == ids
        assert sorted({job["submitted-at"] for job in listed}) == [job["submitted-at"] for job in listed]
        assert all(store.client.zscore("jobs.due", job_id) <= time.time() for job_id in ids[1:])
        time.sleep(0.3)
        overview = endpoint("dashboard").request("GET", "/dashboard/overview").json()
        assert 0.3 <= overview["oldest-waiting-seconds"] < 60

    def test_once_nothing_from_ahead_is_left_submitted_at_is_the_time_again(self, store: Redis, here: None) -> None:
        store.client.set("jobs.last", int((time.time() + self.AHEAD) * 1e6))
        job_id = str(uuid.uuid4())
        state.submit([new_job(job_id)])
        assert abs(float(store.record(job_id)["submitted-at"]) - time.time()) < 60

    def test_what_waits_for_a_time_waits_no_longer_than_before(
        self, endpoint: Start, store: Redis, jobs: dict[str, str]
    ) -> None:
        sweep(endpoint)
        ahead = time.time() + self.AHEAD
        store.client.set("jobs.clock", f"{ahead:.6f}")
        for index in ("jobs.due", "jobs.leases", "jobs.retention", "jobs.outbox"):
            for job_id, score in store.client.zrange(index, 0, -1, withscores=True):
                store.client.zadd(index, {job_id: score + self.AHEAD})
        backoff = jobs["submitted 2"]
        store.client.zadd("jobs.due", {backoff: ahead + 20})
        sweep(endpoint)
        assert isinstance(state.claim(jobs["submitted 1"], "127.0.0.1"), Claim)
        assert state.claim(backoff, "127.0.0.1") == "none"
        assert store.client.zscore("jobs.due", backoff) <= time.time() + 20
        assert store.client.zrange("jobs.leases", -1, -1, withscores=True)[0][1] <= time.time() + 15
        assert store.client.zrange("jobs.retention", -1, -1, withscores=True)[0][1] <= time.time() + 604800
        assert store.client.zrange("jobs.outbox", -1, -1, withscores=True)[0][1] <= time.time() + 60
