"""Jobs that wait for a time, and jobs with limits of their own."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from knative_jobs.store import state
from tests.conftest import Broker, Redis, Start, connected, eventually, new_job, problem

LIMITS = {"JOB_MAX_ATTEMPTS": "3", "JOB_TIMEOUT_SECONDS": "300", "JOB_RETENTION_SECONDS": "604800"}
DAY = 24 * 3600

Post = Callable[..., dict[str, Any]]


@pytest.fixture
def post(endpoint: Start, store: Redis) -> Post:
    """Submit a job with these fields, and return the answer."""

    def post(start: str = "return", **fields: object) -> dict[str, Any]:
        body = json.dumps(
            {"start": start, "end": 2} | {name.replace("_", "-"): given for name, given in fields.items()}
        )
        answer = endpoint("jobs").request("POST", "/jobs", body=body)
        assert answer.status == 202, answer.data
        return dict(answer.json())

    return post


class TestNotBefore:
    def test_a_job_is_not_begun_before_its_time_and_once_after_it(
        self, worker: Start, post: Post, status, store: Redis
    ) -> None:
        function = worker()
        job = post(delay=2)
        function.deliver(job["id"])
        waiting = status(job["id"])
        if time.time() < job["run-at"]:  # a machine that is busy may come too late to see it
            assert waiting["status"] == "submitted"
        assert waiting["run-at"] == job["run-at"]
        eventually(lambda: function.deliver(job["id"]) == 204 and status(job["id"])["status"] == "complete")
        done = status(job["id"])
        assert done["started-at"] >= done["run-at"] >= done["submitted-at"] + 2 - 1e-5
        assert done["attempt"] == 1

    def test_a_delay_becomes_a_time_by_the_clock_of_redis(self, post: Post, status, store: Redis) -> None:
        before, _ = store.client.time()
        job = post(delay=3600)
        assert before + 3600 <= job["run-at"] <= store.client.time()[0] + 3601
        assert "delay" not in job
        assert "delay" not in status(job["id"])
        assert store.client.zscore("jobs.due", job["id"]) == job["run-at"]

    @pytest.mark.parametrize(
        "written",
        [
            lambda at: at,
            lambda at: datetime.fromtimestamp(at, UTC).isoformat(),
            lambda at: datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z"),
            lambda at: datetime.fromtimestamp(at, timezone(timedelta(hours=-7))).isoformat(),
        ],
    )
    def test_a_time_is_seconds_of_the_epoch_or_a_date_and_time_with_an_offset(
        self, post: Post, status, written: Callable[[int], object]
    ) -> None:
        at = int(time.time()) + 25 * 3600
        job = post(run_at=written(at))
        assert job["run-at"] == status(job["id"])["run-at"] == at

    def test_a_delay_of_nothing_is_due_now(self, worker: Start, post: Post, status) -> None:
        job = post(delay=0)
        assert "run-at" not in job
        worker().deliver(job["id"])
        assert status(job["id"])["status"] == "complete"

    def test_each_job_of_a_batch_has_its_own_time(self, endpoint: Start, worker: Start, status, store: Redis) -> None:
        batch = [{"start": "return", "end": 1}, {"start": "return", "end": 2, "delay": 3600}]
        now, later = endpoint("jobs").request("POST", "/jobs", body=json.dumps(batch)).json()
        worker().deliver(later["id"])
        assert status(now["id"])["status"] == "complete", "the worker was awake, and this was due"
        assert status(later["id"])["status"] == "submitted"

    def test_the_process_that_submitted_it_announces_it_when_its_time_has_come(
        self, start: Start, broker: Broker
    ) -> None:
        jobs = start("jobs", K_SINK=broker.url).ready()
        job = jobs.request("POST", "/jobs", body='{"start": "1", "end": 2, "delay": 1}').json()
        eventually(lambda: broker.events)
        assert time.time() >= job["run-at"]
        headers, record = broker.events[0]
        assert (headers["ce-subject"], record["run-at"]) == (job["id"], job["run-at"])

    def test_the_sweeper_announces_it_when_that_process_is_gone(
        self, start: Start, post: Post, broker: Broker, status
    ) -> None:
        job = post(delay=1)
        sweeper = start("sweeper", K_SINK=broker.url, SWEEP_SECONDS="57").ready()
        sweeper.request("POST", preload_content=False)
        eventually(lambda: broker.events)
        assert time.time() >= job["run-at"]
        assert broker.events[0][0]["ce-subject"] == job["id"]

    def test_it_waits_through_a_restart_of_redis(self, worker: Start, post: Post, status, store: Redis) -> None:
        job = post(delay=25 * 3600)
        store.kill()
        store.start()
        function = worker()
        function.deliver(job["id"])
        assert status(job["id"])["status"] == "submitted"
        assert store.client.zscore("jobs.due", job["id"]) == job["run-at"]

    def test_a_clock_that_goes_back_does_not_bring_it_forward(
        self, endpoint: Start, post: Post, store: Redis, status
    ) -> None:
        job = post(delay=3600)
        store.client.set("jobs.clock", f"{time.time() + DAY:.6f}")  # a day ahead at the last sweep
        assert endpoint("sweeper").request("POST").status == 204
        assert store.client.zscore("jobs.due", job["id"]) == job["run-at"]

    def test_an_index_that_is_lost_does_not_bring_it_forward(self, endpoint: Start, post: Post, store: Redis) -> None:
        job = post(delay=3600)
        store.client.delete("jobs.due")
        assert endpoint("sweeper").request("POST").status == 204
        assert store.client.zscore("jobs.due", job["id"]) == job["run-at"]

    def test_a_job_that_was_cancelled_and_retried_waits_for_its_time(
        self, endpoint: Start, post: Post, store: Redis
    ) -> None:
        job = post(delay=3600)
        assert endpoint("cancel_job").request("POST", f"/cancel_job?job_id={job['id']}").status == 200
        assert store.client.zscore("jobs.due", job["id"]) is None
        retried = endpoint("retry_job").request("POST", f"/retry_job?job_id={job['id']}")
        assert (retried.status, retried.json()["run-at"]) == (202, job["run-at"])
        assert store.client.zscore("jobs.due", job["id"]) == job["run-at"]

    def test_the_same_submission_after_its_time_is_answered_with_the_same_job(
        self, endpoint: Start, store: Redis
    ) -> None:
        def submit(**time_: float) -> dict[str, Any]:
            body = json.dumps(
                {"start": "1", "end": 2} | {name.replace("_", "-"): given for name, given in time_.items()}
            )
            return dict(
                endpoint("jobs").request("POST", "/jobs", body=body, headers={"Idempotency-Key": repr(time_)}).json()
            )

        soon = round(time.time() + 1.5, 3)
        delayed, timed = submit(delay=0.5), submit(run_at=soon)
        eventually(lambda: time.time() > soon + 0.1)
        assert submit(delay=0.5) == delayed
        assert submit(run_at=soon) == timed


class TestWaitingForATimeIsNotWaitingForAWorker:
    def test_a_delayed_job_does_not_count_as_queued(self, start: Start, store: Redis) -> None:
        jobs = start("jobs", MAX_QUEUED_JOBS="1").ready()
        delayed, due = '{"start": "1", "end": 2, "delay": 600}', '{"start": "1", "end": 2}'
        assert jobs.request("POST", "/jobs", body=f"[{delayed}, {due}, {delayed}]").status == 202
        assert jobs.request("POST", "/jobs", body=due).status == 429
        assert jobs.request("POST", "/jobs", body=delayed).status == 202

    def test_it_is_neither_the_oldest_waiting_job_nor_overdue(self, endpoint: Start, post: Post, status) -> None:
        first = post(delay=600)
        time.sleep(0.3)
        seen = endpoint("dashboard").request("GET", "/dashboard/overview").json()
        assert (seen["oldest-waiting-seconds"], seen["delayed"], seen["counts"]["submitted"]) == (0, 1, 1)
        post()
        time.sleep(0.3)
        seen = endpoint("dashboard").request("GET", "/dashboard/overview").json()
        assert 0 < seen["oldest-waiting-seconds"] < time.time() - status(first["id"])["submitted-at"]
        metrics = endpoint("metrics").request("GET", "/metrics").data.decode()
        assert 'knative_jobs_delayed{kind="default"} 1.0' in metrics

    def test_its_wait_is_from_its_time_on(self, endpoint: Start, worker: Start, post: Post, status) -> None:
        function, job = worker(), post(delay=2)
        eventually(lambda: function.deliver(job["id"]) == 204 and status(job["id"])["status"] == "complete")
        done = status(job["id"])
        metrics = endpoint("metrics").request("GET", "/metrics").data.decode()
        waited = float(metrics.split('knative_jobs_wait_seconds_sum{kind="default"} ')[1].split("\n")[0])
        assert waited == pytest.approx(done["started-at"] - done["run-at"], abs=1e-4)

    def test_many_of_them_keep_no_sweep_awake(
        self, start: Start, store: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with connected(store, "submitter", monkeypatch, max_queued_jobs=1):
            for batch in range(100):
                ids = [f"{batch:08d}-{n:04d}-4000-8000-000000000000" for n in range(1000)]
                state.submit([new_job(job_id, options="delay 90000") for job_id in ids])
        sweeper = start("sweeper", SWEEP_SECONDS="3000").ready()
        assert sweeper.request("POST").status == 204, "it would go on for longer than this test waits"

    def test_a_job_whose_event_was_not_delivered_still_waits_since_it_was_due(
        self, start: Start, endpoint: Start, post: Post, worker: Start, status
    ) -> None:
        job = post()
        time.sleep(0.3)
        dead = {
            "ce-specversion": "1.0",
            "ce-type": "dev.knative-jobs.job.submitted",
            "ce-source": "/jobs",
            "ce-id": "1",
        }
        dead_letter = start("dead_letter", JOB_BACKOFF_SECONDS="1").ready()
        assert dead_letter.request("POST", headers=dead | {"ce-subject": job["id"]}).status == 204
        seen = endpoint("dashboard").request("GET", "/dashboard/overview").json()
        assert seen["oldest-waiting-seconds"] >= 0.3
        function = worker()
        eventually(lambda: function.deliver(job["id"]) == 204 and status(job["id"])["status"] == "complete")
        assert endpoint("dashboard").request("GET", "/dashboard/overview").json()["oldest-waiting-seconds"] == 0


class TestLimitsOfItsOwn:
    def test_its_number_of_attempts(self, worker: Start, post: Post, status) -> None:
        function = worker(JOB_BACKOFF_SECONDS="0", **LIMITS)
        once, thrice = post("raise oh", max_attempts=1), post("raise oh")
        for job, attempts in ((once, 1), (thrice, 3)):
            eventually(lambda job=job: function.deliver(job["id"]) == 204 and status(job["id"])["status"] == "failed")
            assert status(job["id"])["attempt"] == attempts

    def test_its_time_limit(self, worker: Start, post: Post, status) -> None:
        job = post("sleep 60", timeout=0.5, max_attempts=1)
        worker(**LIMITS).deliver(job["id"])
        done = status(job["id"])
        assert (done["status"], done["error"]["type"], done["timeout"]) == ("failed", "TimeoutError", 0.5)
        assert done["error"]["message"] == "not done within 0.5 seconds"

    def test_its_retention(self, worker: Start, endpoint: Start, post: Post, status) -> None:
        function, short, long = worker(**LIMITS), post(retention=0.5), post()
        for job in (short, long):
            function.deliver(job["id"])
        eventually(
            lambda: (
                endpoint("sweeper").request("POST").status == 204
                and endpoint("jobs_status").request("GET", f"/jobs_status?job_id={short['id']}").status == 404
            )
        )
        assert status(long["id"])["status"] == "complete"

    def test_a_limit_that_was_lowered_since_holds(self, worker: Start, post: Post, status) -> None:
        job = post("raise oh", max_attempts=3)
        worker(JOB_MAX_ATTEMPTS="1").deliver(job["id"])
        assert status(job["id"])["status"] == "failed"

    def test_they_belong_to_what_an_idempotency_key_stands_for(self, endpoint: Start, store: Redis) -> None:
        def submit(**more: float) -> int:
            body = json.dumps({"start": "1", "end": 2} | more)
            return endpoint("jobs").request("POST", "/jobs", body=body, headers={"Idempotency-Key": "k"}).status

        assert [submit(timeout=5), submit(timeout=5), submit(timeout=6), submit()] == [202, 202, 422, 422]


@pytest.mark.parametrize(
    ("field", "given", "says"),
    [
        ("delay", "-1", "from 0 to 31536000"),
        ("delay", "31536001", "from 0 to 31536000"),
        ("delay", "1e999", "not JSON|from 0"),
        ("delay", "NaN", "not JSON"),
        ("delay", '"5"', "from 0 to 31536000"),
        ("delay", "null", "from 0 to 31536000"),
        ("run-at", "1000000000", "is over"),
        ("run-at", "-5", "seconds since the epoch"),
        ("run-at", "99999999999", "365 days"),
        ("run-at", '"2020-01-01T00:00:00Z"', "is over"),
        ("run-at", '"2099-01-01T00:00:00"', "seconds since the epoch"),
        ("run-at", '"tomorrow"', "seconds since the epoch"),
        ("run-at", "true", "seconds since the epoch"),
        ("run-at", "[]", "seconds since the epoch"),
        ("max-attempts", "0", "from 1 to 3"),
        ("max-attempts", "4", "from 1 to 3"),
        ("max-attempts", "1.5", "whole number from 1 to 3"),
        ("max-attempts", '"2"', "from 1 to 3"),
        ("timeout", "0", "from 0.1 to 300"),
        ("timeout", "301", "from 0.1 to 300"),
        ("retention", "-1", "from 0.1 to 604800"),
        ("retention", "604801", "from 0.1 to 604800"),
        ("retention", "{}", "from 0.1 to 604800"),
        ("run_at", "1", "fields that a job does not have"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_stored(
    endpoint: Start, store: Redis, field: str, given: str, says: str
) -> None:
    good, bad = '{"start": "1", "end": 2}', f'{{"start": "1", "end": 2, "{field}": {given}}}'
    for body in (bad, f"[{good}, {bad}]"):
        detail = problem(endpoint("jobs", **LIMITS).request("POST", "/jobs", body=body), 400)
        assert any(word in detail for word in says.split("|")), detail
        assert store.client.keys() == []


def test_a_delay_and_a_time_together_are_refused(endpoint: Start, store: Redis) -> None:
    body = json.dumps({"start": 1, "end": 2, "delay": 5, "run-at": time.time() + 5})
    assert "a job has one of them" in problem(endpoint("jobs").request("POST", "/jobs", body=body), 400)
    assert store.client.keys() == []
