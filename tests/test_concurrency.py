"""WORKER_CONCURRENCY: a worker that does several jobs at once, each as if it were alone."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import PATIENCE_S, Function, Receiver, Redis, Start, eventually

Submit = Callable[[str], str]


@pytest.fixture
def four(worker: Start) -> Start:
    def four(**settings: str) -> Function:
        return worker(WORKER_CONCURRENCY="4", JOB_MAX_ATTEMPTS="1", **settings)

    return four


def deliver(worker: Function, *jobs: str) -> list[threading.Thread]:
    """Deliver the event of each job, while others are delivered."""
    threads = [threading.Thread(target=worker.deliver, args=[job_id]) for job_id in jobs]
    for thread in threads:
        thread.start()
    return threads


def running(store: Redis) -> int:
    return int(store.client.zcard("jobs.in-progress"))


def test_one_event_brings_as_many_jobs_as_the_worker_may_do(
    four: Start, submit: Submit, store: Redis, tmp_path: Path
) -> None:
    go_on = tmp_path / "go-on"
    jobs = [submit(f"wait-for {go_on}") for _ in range(6)]
    [thread] = deliver(four(), jobs[0])
    eventually(lambda: running(store) == 4)
    time.sleep(1.5)
    assert running(store) == 4, "and no more"
    go_on.touch()
    thread.join()
    assert {store.record(job_id)["status"] for job_id in jobs} == {"complete"}


def test_each_event_finds_a_thread_and_so_does_a_probe(
    four: Start, submit: Submit, store: Redis, tmp_path: Path
) -> None:
    go_on = tmp_path / "go-on"
    function = four()
    threads = deliver(function, *(submit(f"wait-for {go_on}") for _ in range(8)))
    eventually(lambda: running(store) == 4)
    assert function.request("GET", "/health/readiness").status == 200
    go_on.touch()
    for thread in threads:
        thread.join()
    assert store.client.zcard("jobs.complete") == 8


def test_what_ends_one_job_leaves_the_others(
    four: Start, submit: Submit, start: Start, store: Redis, tmp_path: Path
) -> None:
    go_on = tmp_path / "go-on"
    dies, cancelled, late, done = (submit(w) for w in ("die", "watch-cancelled", "sleep 600", f"wait-for {go_on}"))
    threads = deliver(four(JOB_TIMEOUT_SECONDS="4"), dies, cancelled, late, done)
    eventually(lambda: store.record(dies)["status"] == "failed" and running(store) == 3)
    assert start("cancel_job").ready().request("POST", f"/cancel_job?job_id={cancelled}").status == 202
    eventually(lambda: store.record(cancelled)["status"] == "cancelled")
    go_on.touch()
    for thread in threads:
        thread.join()
    errors = {job_id: json.loads(store.record(job_id)["error"])["type"] for job_id in (dies, late)}
    assert errors == {dies: "WorkProcessDied", late: "TimeoutError"}
    assert (store.record(done)["status"], store.record(done)["attempt"]) == ("complete", "1")


def test_a_worker_that_is_stopped_hands_back_all_that_it_has(four: Start, submit: Submit, store: Redis) -> None:
    jobs = [submit("sleep 600") for _ in range(4)]
    function = four(WORKER_GRACE_SECONDS="0.5")
    [thread] = deliver(function, jobs[0])
    eventually(lambda: running(store) == 4)
    function.process.terminate()
    assert function.process.wait(PATIENCE_S) is not None
    thread.join()
    records = [store.record(job_id) for job_id in jobs]
    assert [(record["status"], record["releases"]) for record in records] == [("submitted", "1")] * 4


def test_what_is_logged_names_the_job_that_logged_it(worker: Start, submit: Submit) -> None:
    jobs = [submit(f"{job}") for job in ("a", "b", "c", "d")]
    function = worker(WORKER_CONCURRENCY="4", JOB_WORK="unruly_work:say_its_name", K_SERVICE="worker")
    for thread in deliver(function, *jobs):
        thread.join()
    said = [json.loads(line) for line in function.log().splitlines() if "my name is" in line]
    assert sorted((line["job_id"], line["message"]) for line in said) == sorted(
        (job_id, f"my name is {job_id}") for job_id in jobs
    )


def test_results_are_each_jobs_own(four: Start, submit: Submit, store: Redis) -> None:
    jobs = {submit("traceparent"): n for n in range(60)}
    for thread in deliver(four(), *jobs):
        thread.join()
    for job_id in jobs:
        record = store.record(job_id)
        assert (record["status"], record["attempt"]) == ("complete", "1")


def test_services_are_asked_at_once_without_a_process(worker: Start, submit: Submit, store: Redis) -> None:
    together = threading.Barrier(20)
    service = Receiver(lambda *_: together.wait(PATIENCE_S) >= 0 and 204)
    jobs = [submit("post") for _ in range(20)]
    function = worker(WORKER_CONCURRENCY="20", JOB_WORK=f"{service.url}/")
    [thread] = deliver(function, jobs[0])
    thread.join()
    service.stop()
    assert {store.record(job_id)["status"] for job_id in jobs} == {"complete"}
