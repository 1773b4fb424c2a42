"""`Prefer` on a submission: https://www.rfc-editor.org/rfc/rfc7240."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import urllib3

from tests.conftest import EXAMPLE, Function, Redis, Start, eventually


@pytest.fixture
def jobs(endpoint: Start, store: Redis) -> Function:
    return endpoint("jobs")


def submit(jobs: Function, prefer: str, body: str = EXAMPLE, **headers: str) -> urllib3.BaseHTTPResponse:
    return jobs.request("POST", "/jobs", body=body, headers={"Prefer": prefer, **headers})


def when_one_waits(store: Redis, act: object) -> threading.Thread:
    """Call `act` with the id of the next job that is submitted and that a client waits for."""

    def acting() -> None:
        [job_id] = eventually(lambda: store.client.zrange("jobs.submitted", 0, -1))  # type: ignore[misc]
        eventually(lambda: store.client.pubsub_numsub(f"job.{job_id}")[0][1])
        act(job_id)  # type: ignore[operator]

    thread = threading.Thread(target=acting)
    thread.start()
    return thread


def waited_for(store: Redis) -> list[str]:
    """The jobs whose end somebody waits for."""
    jobs = store.client.zrange("jobs.submitted", 0, -1)
    subscribed = store.client.pubsub_numsub(*(f"job.{job_id}" for job_id in jobs))
    return [channel.removeprefix("job.") for channel, subscribers in subscribed if subscribers]


class TestWait:
    @pytest.mark.parametrize(
        "prefer", ["wait=50", 'respond-async, wait="50"', "WAIT=50; x=y, other", "wait=50, wait=1"]
    )
    def test_a_job_that_ends_in_time_is_answered_with_its_record(
        self, jobs: Function, endpoint: Start, store: Redis, prefer: str
    ) -> None:
        worker = when_one_waits(store, endpoint("worker", JOB_SECONDS="0").deliver)
        answer = submit(jobs, prefer)
        worker.join()
        assert (answer.status, answer.headers["Preference-Applied"]) == (200, "wait=50")
        assert answer.json()["status"] == "complete"
        assert answer.json() == endpoint("jobs_status").request("GET", f"/?job_id={answer.json()['id']}").json()
        assert "Location" not in answer.headers

    def test_so_is_one_that_is_cancelled_or_fails(self, jobs: Function, endpoint: Start, store: Redis) -> None:
        cancel = endpoint("cancel_job")
        thread = when_one_waits(store, lambda job_id: cancel.request("POST", f"/cancel_job?job_id={job_id}"))
        answer = submit(jobs, "wait=50")
        thread.join()
        assert (answer.status, answer.json()["status"]) == (200, "cancelled")

    def test_one_that_does_not_is_answered_as_ever(self, jobs: Function) -> None:
        began_at = time.monotonic()
        answer = submit(jobs, "wait=1")
        assert time.monotonic() - began_at >= 1
        assert answer.status == 202
        assert answer.json()["status"] == "submitted"
        assert answer.headers["Location"].endswith(answer.json()["id"])
        assert "Preference-Applied" not in answer.headers

    def test_it_waits_no_longer_than_a_status_query_may(self, jobs: Function, endpoint: Start, store: Redis) -> None:
        worker = when_one_waits(store, endpoint("worker", JOB_SECONDS="0").deliver)
        answer = submit(jobs, "wait=999999")
        worker.join()
        assert answer.headers["Preference-Applied"] == "wait=60"

    @pytest.mark.parametrize(
        "prefer", ["wait", "wait=", "wait=x", "wait=-1", "wait=1.5", "wait=0", "return=minimal", ""]
    )
    def test_what_cannot_be_done_is_ignored(self, jobs: Function, prefer: str) -> None:
        answer = submit(jobs, prefer)
        assert answer.status == 202
        assert "Preference-Applied" not in answer.headers

    def test_a_batch_is_answered_at_once(self, jobs: Function) -> None:
        answer = submit(jobs, "wait=50", f"[{EXAMPLE}, {EXAMPLE}]")
        assert answer.status == 202
        assert "Preference-Applied" not in answer.headers

    def test_the_same_key_waits_for_the_same_job(self, jobs: Function, endpoint: Start, store: Redis) -> None:
        first = submit(jobs, "", **{"Idempotency-Key": "k"}).json()
        worker = when_one_waits(store, endpoint("worker", JOB_SECONDS="0").deliver)
        again = submit(jobs, "wait=50", **{"Idempotency-Key": "k"})
        worker.join()
        assert (again.status, again.json()["id"]) == (200, first["id"])
        assert again.headers["Idempotency-Replayed"] == "true"

    def test_a_job_is_acknowledged_when_redis_goes_away_meanwhile(self, start: Start, store: Redis) -> None:
        jobs = start("jobs").ready()

        def go_away(_: str) -> None:
            store.kill()
            store.start()

        thread = when_one_waits(store, go_away)
        answer = submit(jobs, "wait=5")
        thread.join()
        assert answer.status == 202
        assert store.record(answer.json()["id"])["status"] == "submitted"

    def test_many_wait_and_hold_up_nobody(self, jobs: Function, endpoint: Start, store: Redis) -> None:
        cancel = endpoint("cancel_job")
        with ThreadPoolExecutor(200) as threads:
            waiting = [threads.submit(submit, jobs, "wait=60") for _ in range(200)]
            eventually(lambda: len(waited_for(store)) == 200 or any(future.done() for future in waiting))
            assert submit(jobs, "").status == 202
            assert not [future.result().data for future in waiting if future.done()]
            for job_id in waited_for(store):
                cancel.request("POST", f"/cancel_job?job_id={job_id}")
            assert {future.result().status for future in waiting} == {200}


def test_respond_async_is_said_to_be_done(jobs: Function) -> None:
    for prefer in ("respond-async", "respond-async, wait=1", "handling=lenient, Respond-Async"):
        answer = submit(jobs, prefer)
        assert (answer.status, answer.headers["Preference-Applied"]) == (202, "respond-async")
