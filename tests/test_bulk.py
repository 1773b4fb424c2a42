"""Bulk operations: many jobs retried or cancelled with one request; and jobs that are deleted."""

import json
import threading
import time
import uuid
from hashlib import sha256
from typing import Any

import pytest

from knative_jobs.store import state
from knative_jobs.store.state import Claim
from tests.conftest import (
    UNKNOWN_ID,
    Broker,
    Function,
    Redis,
    Start,
    connected,
    deliver_soon,
    eventually,
    new_job,
    problem,
)

SCOPES = {"ci": "write", "eye": "read"}
TOKENS = " ".join(f"{name}:{scope}:{sha256(name.encode()).hexdigest()}" for name, scope in SCOPES.items())
BULK = "bulk-operation"


def made(store: Redis, monkeypatch: pytest.MonkeyPatch, count: int, status: str = "failed", **given: str) -> list[str]:
    """Jobs of this status."""
    ids = [str(uuid.uuid4()) for _ in range(count)]
    with connected(store, "api", monkeypatch):
        for begin in range(0, count, 1000):
            state.submit([new_job(job_id, **given) for job_id in ids[begin : begin + 1000]])
        held = state.claim(ids[0], "127.0.0.1", given.get("kind", "default")) if status != "submitted" else "none"
        for _ in ids if status != "submitted" else ():
            assert isinstance(held, Claim)
            _, held = state.finish(held, status, '{"type": "E", "message": ""}', next_for="127.0.0.1")
    return ids


def bulk(endpoint: Start, action: str, query: str, status: int = 202, **settings: str) -> dict[str, Any]:
    answer = endpoint(f"{action}_jobs", **settings).request("POST", f"/{action}_jobs?{query}")
    assert answer.status == status, answer.data
    return dict(answer.json()) | ({"at": answer.headers["Location"]} if "Location" in answer.headers else {})


def counts(endpoint: Start, kind: str = "default") -> dict[str, int]:
    found = endpoint("dashboard").request("GET", f"/dashboard/overview?kind={kind}").json()["counts"]
    return {status: n for status, n in found.items() if n}


def record(endpoint: Start, job_id: str) -> dict[str, Any]:
    return dict(endpoint("jobs_status").request("GET", f"/jobs_status?job_id={job_id}").json())


class TestFew:
    def test_failed_jobs_are_retried_at_once(
        self, endpoint: Start, start: Start, store: Redis, monkeypatch: pytest.MonkeyPatch, broker: Broker
    ) -> None:
        failed = made(store, monkeypatch, 3)
        assert bulk(endpoint, "retry", "status=failed", K_SINK=broker.url) == {"count": 3}
        assert counts(endpoint) == {"submitted": 3}
        eventually(lambda: {headers["ce-subject"] for headers, _ in broker.events} == set(failed))

    def test_waiting_jobs_are_cancelled_at_once_and_announced(
        self, endpoint: Start, store: Redis, monkeypatch: pytest.MonkeyPatch, broker: Broker
    ) -> None:
        waiting = made(store, monkeypatch, 3, "submitted")
        assert bulk(endpoint, "cancel", "kind=default", K_SINK=broker.url) == {"count": 3}
        assert counts(endpoint) == {"cancelled": 3}
        eventually(lambda: {headers["ce-subject"] for headers, _ in broker.events} == set(waiting))
        assert {headers["ce-type"] for headers, _ in broker.events} == {"dev.knative-jobs.job.cancelled"}

    def test_a_running_job_is_asked_to_stop(
        self, endpoint: Start, store: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (running,) = made(store, monkeypatch, 1, "submitted")
        with connected(store, "api", monkeypatch):
            assert isinstance(state.claim(running, "127.0.0.1"), Claim)
        assert bulk(endpoint, "cancel", "status=in%20progress") == {"count": 1}
        assert "cancel-requested-at" in record(endpoint, running)

    def test_only_what_is_asked_for_is_changed(
        self, endpoint: Start, store: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made(store, monkeypatch, 2, key="a")
        made(store, monkeypatch, 1, key="b")
        made(store, monkeypatch, 1, "cancelled", key="a")
        assert bulk(endpoint, "retry", "key=a") == {"count": 2}, "cancelled ones are not meant unless they are named"
        assert counts(endpoint) == {"submitted": 2, "failed": 1, "cancelled": 1}
        assert bulk(endpoint, "retry", "key=a&status=cancelled") == {"count": 1}
        assert bulk(endpoint, "retry", "from=2100-01-01T00:00:00Z") == {"count": 0}
        assert counts(endpoint) == {"submitted": 3, "failed": 1}

    def test_a_dry_run_counts_and_changes_nothing(
        self, endpoint: Start, store: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made(store, monkeypatch, 1200, key="a")
        for query in ("status=failed", "key=a", "key=a&kind=default"):
            assert bulk(endpoint, "retry", f"{query}&dry-run=1", 200) == {"count": 1200}
        assert bulk(endpoint, "cancel", "key=a&dry-run=1", 200) == {"count": 0}
        assert counts(endpoint) == {"failed": 1200}

    def test_the_record_says_whose_token_it_was(
        self, endpoint: Start, store: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bearer = {"headers": {"Authorization": "Bearer ci"}}
        alone, bulky = made(store, monkeypatch, 2, "submitted")
        for target, query, field in (
            ("cancel_job", f"job_id={alone}", "cancelled-by"),
            ("cancel_jobs", "status=submitted", "cancelled-by"),
            ("retry_job", f"job_id={alone}", "retried-by"),
            ("retry_jobs", "status=cancelled", "retried-by"),
        ):
            answer = endpoint(target, API_TOKENS=TOKENS).request("POST", f"/{target}?{query}", **bearer)
            assert answer.status in (200, 202)
            shown = record(endpoint, bulky if target.endswith("s") else alone)
            assert shown[field] == "ci"
        assert "cancelled-by" not in shown


class TestMany:
    COUNT = 2500

    @pytest.fixture
    def failed(self, store: Redis, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        return made(store, monkeypatch, self.COUNT)

    def half_done(
        self, endpoint: Start, start: Start, store: Redis, monkeypatch: pytest.MonkeyPatch, count: int
    ) -> tuple[str, Function, threading.Thread]:
        """A cancellation of so many jobs that has done some of them, its worker, and what waits for that."""
        made(store, monkeypatch, count, "submitted")
        job_id = bulk(endpoint, "cancel", "status=submitted")["job-id"]
        worker = start("bulk_operations").ready()
        under_way = deliver_soon(worker, job_id)
        eventually(lambda: record(endpoint, job_id).get("progress", 0) > 0)
        return job_id, worker, under_way

    def test_a_job_of_its_own_does_them(
        self, endpoint: Start, start: Start, store: Redis, failed: list[str], broker: Broker
    ) -> None:
        begun = bulk(endpoint, "retry", "status=failed", K_SINK=broker.url)
        assert begun["count"] == self.COUNT
        job_id = begun["job-id"]
        assert begun["at"].endswith(f"/jobs_status?job_id={job_id}")
        eventually(lambda: broker.events)
        event, _ = broker.events[0]
        assert (event["ce-subject"], event["ce-jobkind"]) == (job_id, BULK)
        assert counts(endpoint) == {"failed": self.COUNT}
        assert start("bulk_operations").ready().deliver(job_id) == 204
        done = record(endpoint, job_id)
        assert (done["status"], done["result"], done["progress"]) == ("complete", {"count": self.COUNT}, 1)
        assert done["progress-message"] == f"{self.COUNT} of {self.COUNT} jobs"
        assert counts(endpoint) == {"submitted": self.COUNT}
        listed = endpoint("completed_jobs").request("GET", f"/completed_jobs?kind={BULK}").json()
        assert [job["id"] for job in listed] == [job_id]

    def test_jobs_that_come_later_are_no_part_of_it(
        self, endpoint: Start, start: Start, store: Redis, failed: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job_id = bulk(endpoint, "retry", "status=failed&to=2200-01-01T00:00:00Z")["job-id"]
        made(store, monkeypatch, 2)
        assert start("bulk_operations").ready().deliver(job_id) == 204
        assert counts(endpoint) == {"submitted": self.COUNT, "failed": 2}

    def test_one_that_is_killed_goes_on_where_it_was(
        self, endpoint: Start, start: Start, store: Redis, failed: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first 1,000 were retried, and have failed again: they are not retried twice."""
        job_id = bulk(endpoint, "retry", "status=failed")["job-id"]
        with connected(store, "api", monkeypatch):
            held = state.claim(job_id, "127.0.0.1", BULK)
            assert isinstance(held, Claim)
            asked = state.Filter(**json.loads(held.input)["jobs"])
            operation = state.Operation(held, self.COUNT)
            step = state.redo(asked, "retry", "", operation=operation)
            assert step
            assert (step.done, step.cancelled) == (1000, False)
            assert bulk(endpoint, "cancel", "status=submitted") == {"count": 1000}
            store.client.zadd("jobs.leases", {job_id: 1})
            assert [job.id for job in state.reclaim('{"type": "LeaseExpired"}')] == [job_id]
            assert state.redo(asked, "retry", "", operation=operation) is None
        assert start("bulk_operations").ready().deliver(job_id) == 204
        assert counts(endpoint) == {"submitted": self.COUNT - 1000, "cancelled": 1000}
        assert record(endpoint, job_id)["result"] == {"count": self.COUNT}

    def test_a_step_whose_answer_is_lost_is_counted(
        self, endpoint: Start, start: Start, store: Redis, failed: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The step is asked for once more: then it is the next one."""
        job_id = bulk(endpoint, "retry", "status=failed")["job-id"]
        with connected(store, "api", monkeypatch):
            held = state.claim(job_id, "127.0.0.1", BULK)
            assert isinstance(held, Claim)
            asked, operation = state.Filter(**json.loads(held.input)["jobs"]), state.Operation(held, self.COUNT)
            steps = [state.redo(asked, "retry", "", operation=operation) for _ in range(5)]
        assert [step and step.done for step in steps] == [1000, 2000, 2500, 2500, 2500]
        assert counts(endpoint) == {"submitted": self.COUNT}

    def test_a_redis_that_is_away_for_a_moment_holds_it_up_and_ends_no_attempt(
        self, endpoint: Start, start: Start, store: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        count = 4_000
        job_id, _, under_way = self.half_done(endpoint, start, store, monkeypatch, count)
        store.kill()
        time.sleep(3)  # longer than the pause after a step: one is asked for meanwhile
        store.start()
        under_way.join()
        done = record(endpoint, job_id)
        assert (done["status"], done["attempt"], done["result"]) == ("complete", 1, {"count": count})

    def test_one_that_is_cancelled_leaves_what_it_has_done(
        self, endpoint: Start, start: Start, store: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        count = 8_000
        job_id, _, under_way = self.half_done(endpoint, start, store, monkeypatch, count)
        assert endpoint("cancel_job").request("POST", f"/cancel_job?job_id={job_id}").status == 202
        under_way.join()
        stopped = record(endpoint, job_id)
        assert stopped["status"] == "cancelled"
        done = int(stopped["progress-message"].split()[0])
        assert 0 < done < count
        assert counts(endpoint) == {"cancelled": done, "submitted": count - done}

    def test_one_whose_worker_is_told_to_stop_is_continued_by_the_next(
        self, endpoint: Start, start: Start, store: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        count = 8_000
        job_id, worker, under_way = self.half_done(endpoint, start, store, monkeypatch, count)
        worker.process.terminate()
        under_way.join()
        stopped = record(endpoint, job_id)
        assert (stopped["status"], stopped["continued"], "failures" in stopped) == ("submitted", 1, False)
        assert start("bulk_operations").ready().deliver(job_id) == 204
        assert record(endpoint, job_id)["result"] == {"count": count}
        assert counts(endpoint) == {"cancelled": count}

    def test_no_bulk_operation_is_about_bulk_operations(
        self, endpoint: Start, start: Start, store: Redis, failed: list[str]
    ) -> None:
        bulk(endpoint, "retry", "status=failed")
        assert bulk(endpoint, "cancel", f"kind={BULK}") == {"count": 0}
        assert bulk(endpoint, "cancel", "status=submitted") == {"count": 0}
        assert counts(endpoint, BULK) == {"submitted": 1}


class TestRefusals:
    @pytest.mark.parametrize("action", ["retry", "cancel"])
    @pytest.mark.parametrize(
        ("query", "detail"),
        [
            ("", "Say which jobs: with one or more of status, kind, submitted-by, key, from, to."),
            ("dry-run=1", "Say which jobs"),
            ("status=complete", "status is one of: "),
            ("key=a&dry-run=yes", "dry-run is 0 or 1"),
            ("key=a&order=newest", "There is no parameter 'order'"),
            ("key=a&from=soon", "from is a time"),
            ("kind=nobody", "kind is one of"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(
        self, endpoint: Start, store: Redis, action: str, query: str, detail: str
    ) -> None:
        answer = endpoint(f"{action}_jobs").request("POST", f"/{action}_jobs?{query}")
        assert detail in problem(answer, 400)

    def test_a_token_that_may_only_read_changes_nothing(
        self, endpoint: Start, store: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (job_id,) = made(store, monkeypatch, 1)
        bearer = {"headers": {"Authorization": "Bearer eye"}}
        for target, query in (
            ("retry_jobs", "status=failed"),
            ("cancel_jobs", "status=submitted"),
            ("retry_jobs", "status=failed&dry-run=1"),
            ("delete_job", f"job_id={job_id}"),
        ):
            problem(endpoint(target, API_TOKENS=TOKENS).request("POST", f"/{target}?{query}", **bearer), 403)
        assert counts(endpoint) == {"failed": 1}

    def test_nobody_can_submit_a_bulk_operation_as_a_job(self, endpoint: Start, store: Redis) -> None:
        body = json.dumps({"kind": BULK, "input": {"do": "cancel"}})
        problem(endpoint("jobs").request("POST", "/jobs", body=body), 400)

    def test_no_kind_may_have_its_name(self, start: Start, store: Redis) -> None:
        jobs = start("jobs", JOB_KINDS=f"default {BULK}")
        assert jobs.process.wait(50) != 0
        assert f"JOB_KINDS has {BULK}, which is the kind of this API's own jobs" in jobs.log()


class TestDelete:
    @pytest.mark.parametrize("status", ["complete", "failed", "cancelled"])
    def test_a_job_that_has_ended_is_gone_with_all_that_it_left(
        self, endpoint: Start, store: Redis, monkeypatch: pytest.MonkeyPatch, status: str
    ) -> None:
        kept, gone = made(store, monkeypatch, 2, status, key="a")
        delete = endpoint("delete_job")
        answer = delete.request("POST", f"/delete_job?job_id={gone}")
        assert (answer.status, answer.data) == (204, b"")
        found = endpoint("jobs").request("GET", "/jobs?key=a").json()
        assert [job["id"] for job in found] == [kept]
        for key in store.client.keys("jobs.*"):
            if store.client.type(key) == "zset":
                assert not [entry for entry in store.client.zrange(key, 0, -1) if gone in entry], key
        problem(delete.request("POST", f"/delete_job?job_id={gone}"), 404)

    def test_a_job_that_has_not_ended_stays(
        self, endpoint: Start, store: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (waiting,) = made(store, monkeypatch, 1, "submitted")
        answer = endpoint("delete_job").request("POST", f"/delete_job?job_id={waiting}")
        assert "Cancel it first." in problem(answer, 409)
        assert counts(endpoint) == {"submitted": 1}
        problem(endpoint("delete_job").request("POST", f"/delete_job?job_id={UNKNOWN_ID}"), 404)
