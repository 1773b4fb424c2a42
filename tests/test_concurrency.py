"""WORKER_CONCURRENCY: a worker that does several jobs at once, each as if it were alone."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
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
    four: Start, submit: Submit, endpoint: Start, start: Start, store: Redis, tmp_path: Path
) -> None:
    go_on = tmp_path / "go-on"
    dies, cancelled, done = (submit(work) for work in ("die", "watch-cancelled", f"wait-for {go_on}"))
    body = '{"start": "sleep 600", "end": 2, "timeout": 2}'
    late = endpoint("jobs").request("POST", "/jobs", body=body).json()["id"]
    threads = deliver(four(), dies, cancelled, late, done)
    eventually(lambda: store.record(dies)["status"] == "failed" and store.record(late)["status"] == "failed")
    eventually(lambda: running(store) == 2)
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


class TestOneEventLoop:
    """Work that is `async def`: one process does all of a worker's jobs."""

    @pytest.fixture
    def many(self, worker: Start) -> Start:
        def many(**settings: str) -> Function:
            given = {"WORKER_CONCURRENCY": "30", "JOB_WORK": "unruly_work:at_once", "JOB_MAX_ATTEMPTS": "1"}
            return worker(**given, **settings)

        return many

    def test_one_process_does_many_jobs_at_once_and_each_has_its_own_result_and_log(
        self, many: Start, submit: Submit, store: Redis
    ) -> None:
        jobs = [submit("pid") for _ in range(60)]
        function = many(K_SERVICE="worker")
        began_at = time.monotonic()
        deliver(function, jobs[0])[0].join()
        assert time.monotonic() - began_at < 0.6 * 60 / 2
        records = {job_id: store.record(job_id) for job_id in jobs}
        results = {job_id: json.loads(record["result"]) for job_id, record in records.items()}
        assert {job_id: result[0] for job_id, result in results.items()} == {job_id: job_id for job_id in jobs}
        assert len({process for _, process in results.values()}) == 1
        assert {record["progress-message"] for record in records.values()} == {f"half of {job_id}" for job_id in jobs}
        said = [json.loads(line) for line in function.log().splitlines() if " by " in line]
        assert sorted((line["job_id"], line["logger"], line["message"]) for line in said) == sorted(
            line
            for job_id in jobs
            for line in (
                (job_id, "output", f"printed by {job_id}, and again by {job_id}"),
                (job_id, "unruly", f"logged by {job_id}"),
            )
        )

    def test_whatever_way_the_work_prints_it_is_in_the_log(self, many: Start, submit: Submit, store: Redis) -> None:
        function, job_id = many(K_SERVICE="worker"), submit("print_otherwise")
        assert function.deliver(job_id) == 204
        assert store.record(job_id)["status"] == "complete"
        said = {
            line["message"]: line.get("job_id")
            for line in map(json.loads, filter(lambda text: "printed" in text, function.log().splitlines()))
        }
        assert said == {
            "printed as bytes": None,
            "printed by a program": None,
            "printed in words": job_id,
            "printed to the other": job_id,
        }

    def test_cancelling_failing_and_a_time_limit_are_each_for_one_job(
        self, many: Start, submit: Submit, start: Start, store: Redis, effects: Path
    ) -> None:
        cancelled, late, fails, done = (submit(w) for w in ("until_cancelled", "sleep 600", "raise", "sleep 6"))
        threads = deliver(many(JOB_TIMEOUT_SECONDS="4"), cancelled, late, fails)
        eventually(lambda: running(store) == 3)
        assert start("cancel_job").ready().request("POST", f"/cancel_job?job_id={cancelled}").status == 202
        eventually(lambda: store.record(cancelled)["status"] == "cancelled")
        eventually(lambda: store.record(late)["status"] == "failed")
        for thread in threads:
            thread.join()
        errors = {job_id: json.loads(store.record(job_id)["error"])["type"] for job_id in (late, fails, done)}
        assert errors == {late: "TimeoutError", fails: "ValueError", done: "TimeoutError"}
        assert f"{late} was given up" in effects.read_text()

    def test_an_attempt_that_does_not_end_when_it_is_given_up_ends_the_process(
        self, many: Start, submit: Submit, store: Redis
    ) -> None:
        stubborn, other = submit("stubborn"), submit("sleep 600")
        function = many(JOB_TIMEOUT_SECONDS="3")
        for thread in deliver(function, stubborn, other):
            thread.join()
        errors = [json.loads(store.record(job_id)["error"])["type"] for job_id in (stubborn, other)]
        assert errors[0] == "TimeoutError"
        assert function.deliver(after := submit("pid")) == 204
        assert store.record(after)["status"] == "complete"

    def test_a_crash_is_an_error_of_all_that_ran_and_the_next_job_finds_a_new_process(
        self, many: Start, submit: Submit, store: Redis, effects: Path
    ) -> None:
        other = submit("sleep 600")
        function = many()
        threads = deliver(function, other)
        eventually(lambda: effects.exists() and other in effects.read_text())
        dies = submit("die")
        threads += deliver(function, dies)
        for thread in threads:
            thread.join()
        errors = [json.loads(store.record(job_id)["error"]) for job_id in (other, dies)]
        assert {error["type"] for error in errors} == {"WorkProcessDied"}
        assert all("exit code 3" in error["message"] for error in errors)
        assert function.deliver(after := submit("pid")) == 204
        assert store.record(after)["status"] == "complete"

    def test_a_forked_child_ends_where_the_work_returns(self, many: Start, submit: Submit, store: Redis) -> None:
        job_id = submit("fork")
        assert many().deliver(job_id) == 204
        assert json.loads(store.record(job_id)["result"]) == "of the parent"

    @pytest.mark.parametrize("work", ["async def", "a service"])
    def test_two_hundred_jobs_that_wait_fit_into_128_mb(
        self, worker: Start, submit: Submit, store: Redis, tmp_path: Path, work: str
    ) -> None:
        answers = threading.Event()
        service = Receiver(lambda *_: answers.wait() and 204)
        named = "unruly_work:wait_at_once" if work == "async def" else service.url
        jobs = [submit(f"{tmp_path / 'go'}") for _ in range(200)]
        function = worker(WORKER_CONCURRENCY="200", JOB_WORK=named, JOB_MAX_ATTEMPTS="1")
        [thread] = deliver(function, jobs[0])
        eventually(lambda: running(store) == 200)
        time.sleep(2)  # for all to be under way
        server = psutil.Process(function.process.pid)
        used = sum(p.memory_full_info().pss for p in [server, *server.children(recursive=True)])
        (tmp_path / "go").touch()
        answers.set()
        thread.join()
        service.stop()
        assert used < 128 * 10**6
        assert {store.record(job_id)["status"] for job_id in jobs} == {"complete"}

    def test_a_worker_that_is_stopped_hands_all_back(
        self, many: Start, submit: Submit, store: Redis, effects: Path
    ) -> None:
        jobs = [submit("sleep 600") for _ in range(10)]
        function = many(WORKER_GRACE_SECONDS="0.5")
        [thread] = deliver(function, jobs[0])
        eventually(lambda: effects.exists() and effects.read_text().count("began") == 10)
        function.process.terminate()
        assert function.process.wait(PATIENCE_S) is not None
        thread.join()
        records = [store.record(job_id) for job_id in jobs]
        assert [(record["status"], record["releases"]) for record in records] == [("submitted", "1")] * 10
