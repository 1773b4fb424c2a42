"""Work: what becomes of a job whose event reaches a worker."""

import json
import os
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import PATIENCE_S, Receiver, Redis, Start, deliver_soon, eventually


def begun(effects: Path) -> Counter[str]:
    """How often work on each job began."""
    return Counter(line.split()[0] for line in effects.read_text().splitlines()) if effects.exists() else Counter()


def sweep_until(endpoint: Start, check: Callable[[], object]) -> None:
    eventually(lambda: endpoint("sweeper").request("POST").status == 204 and check())


class TestOutcomes:
    def test_what_the_work_returns_is_the_result(self, worker: Start, submit, status, store: Redis) -> None:
        job_id = submit("return")
        assert worker().deliver(job_id) == 204
        job = status(job_id)
        assert job["status"] == "complete"
        assert job["result"] == {"start": "return", "end": 2}
        assert job["attempt"] == 1
        assert job["worker-ip"] == "127.0.0.1"
        assert job["submitted-at"] <= job["started-at"] <= job["finished-at"]
        assert store.record(job_id)["status"] == "complete"

    def test_the_answer_to_a_broker_has_no_body(self, worker: Start, submit) -> None:
        function = worker()
        job_id = submit("raise oh")
        headers = {"ce-specversion": "1.0", "ce-type": "dev.knative-jobs.job.submitted", "ce-source": "/jobs"}
        answer = function.request("POST", headers=headers | {"ce-id": "1", "ce-subject": job_id}, body=b"")
        assert (answer.status, answer.data) == (204, b"")

    def test_an_event_in_structured_mode_is_as_good(self, worker: Start, submit, status) -> None:
        job_id = submit("return")
        event = {"specversion": "1.0", "type": "dev.knative-jobs.job.submitted", "source": "/jobs", "id": "1"}
        headers = {"content-type": "application/cloudevents+json"}
        answer = worker().request("POST", headers=headers, body=json.dumps(event | {"subject": job_id}))
        assert answer.status == 204
        assert status(job_id)["status"] == "complete"

    def test_a_coroutine_is_awaited(self, worker: Start, submit, status) -> None:
        job_id = submit("this")
        worker(JOB_WORK="sample_work:coroutine").deliver(job_id)
        assert status(job_id)["result"] == "awaited this"

    def test_the_stand_in_takes_any_start_and_end(self, worker: Start, submit, status) -> None:
        job_id = submit("whatever it is")
        worker(JOB_WORK="", JOB_SECONDS="0.3").deliver(job_id)
        job = status(job_id)
        assert (job["status"], job["progress"]) == ("complete", 1)
        assert job["finished-at"] - job["started-at"] >= 0.3

    def test_what_the_work_raises_is_the_error_of_a_failed_job(self, worker: Start, submit, status) -> None:
        job_id = submit("raise no-luck")
        worker(JOB_MAX_ATTEMPTS="1").deliver(job_id)
        job = status(job_id)
        assert (job["status"], job["attempt"], job["failures"]) == ("failed", 1, 1)
        assert (job["error"]["type"], job["error"]["message"]) == ("ValueError", "no-luck")
        assert "sample_work.py" in job["error"]["traceback"]

    def test_an_error_is_bounded_in_size(self, worker: Start, submit, status) -> None:
        job_id = submit("raise " + "x" * 4000)
        worker(JOB_MAX_ATTEMPTS="1").deliver(job_id)
        assert len(json.dumps(status(job_id)["error"])) < 4000

    @pytest.mark.parametrize("work", ["fail it-is-no-use", "unserialisable", "large"])
    def test_what_would_not_go_better_is_not_tried_again(self, worker: Start, submit, status, work: str) -> None:
        job_id = submit(work)
        worker().deliver(job_id)
        assert (status(job_id)["status"], status(job_id)["attempt"]) == ("failed", 1)

    @pytest.mark.parametrize(("work", "says"), [("die", "signal 9"), ("exit", "3")])
    def test_work_that_ends_its_process_is_an_error_and_not_the_workers_end(
        self, worker: Start, submit, status, work: str, says: str
    ) -> None:
        function = worker(JOB_MAX_ATTEMPTS="1")
        job_id, next_id = submit(work), submit("return")
        assert function.deliver(job_id) == 204
        assert status(job_id)["status"] == "failed"
        assert says in status(job_id)["error"]["message"]
        assert status(next_id)["status"] == "complete"

    def test_an_attempt_may_not_take_longer_than_the_timeout(self, worker: Start, submit, status) -> None:
        job_id = submit("sleep 60")
        worker(JOB_MAX_ATTEMPTS="1", JOB_TIMEOUT_SECONDS="0.5", JOB_LEASE_SECONDS="0.9").deliver(job_id)
        assert status(job_id)["status"] == "failed"
        assert status(job_id)["error"]["type"] == "TimeoutError"


class TestAttempts:
    def test_work_that_raises_is_tried_again_after_a_backoff(self, worker: Start, submit, status, store: Redis) -> None:
        function = worker(JOB_BACKOFF_SECONDS="600", JOB_MAX_ATTEMPTS="3")
        job_id = submit("raise-until-attempt 3")
        for attempt, longest_s in ((1, 600), (2, 1200)):
            began_at = time.time()
            function.deliver(job_id)
            job = status(job_id)
            assert (job["status"], job["attempt"], job["failures"]) == ("submitted", attempt, attempt)
            assert job["error"]["message"] == "not yet"
            assert began_at + longest_s / 2 <= store.client.zscore("jobs.due", job_id) <= time.time() + longest_s
            assert function.deliver(job_id) == 204
            assert status(job_id)["attempt"] == attempt, "an event that comes again does not shorten the backoff"
            store.client.zadd("jobs.due", {job_id: time.time()})  # the backoff is over
        function.deliver(job_id)
        job = status(job_id)
        assert (job["status"], job["attempt"]) == ("complete", 3)
        assert "error" not in job

    def test_after_the_last_attempt_it_is_failed(self, worker: Start, submit, status) -> None:
        function = worker(JOB_BACKOFF_SECONDS="0", JOB_MAX_ATTEMPTS="3")
        job_id = submit("raise always")
        eventually(lambda: function.deliver(job_id) == 204 and status(job_id)["status"] == "failed")
        assert (status(job_id)["attempt"], status(job_id)["failures"]) == (3, 3)

    def test_work_may_say_when_it_wants_to_be_tried_again(self, worker: Start, submit, status) -> None:
        function = worker(JOB_BACKOFF_SECONDS="3600")
        job_id = submit("retry-after 0.3")
        eventually(lambda: function.deliver(job_id) == 204 and status(job_id)["status"] == "complete")
        assert status(job_id)["attempt"] == 2


class TestDuplicates:
    def test_the_same_event_many_times_at_once_and_later_is_work_once(
        self, worker: Start, submit, status, effects: Path
    ) -> None:
        functions = [worker(), worker()]
        job_id = submit("sleep 0.5")
        threads = [threading.Thread(target=functions[i % 2].deliver, args=[job_id]) for i in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert functions[0].deliver(job_id) == 204
        assert status(job_id)["status"] == "complete"
        assert begun(effects) == {job_id: 1}

    @pytest.mark.parametrize("event", ["of a job that another has", "of a job in its backoff", "of a job that is gone"])
    def test_a_worker_whose_event_names_no_due_job_does_the_oldest_that_is_due(
        self, worker: Start, submit, status, effects: Path, event: str
    ) -> None:
        function = worker(WORKER_DRAIN_SECONDS="0", JOB_BACKOFF_SECONDS="60")
        named = submit("raise once" if "backoff" in event else "return")
        assert function.deliver(named) == 204
        before = status(named)
        oldest, newest = submit("return"), submit("return")
        assert function.deliver(str(uuid.uuid4()) if "gone" in event else named) == 204
        assert [status(job_id)["status"] for job_id in (oldest, newest)] == ["complete", "submitted"]
        assert status(named) == before

    def test_an_event_with_nothing_to_do_costs_one_script(self, worker: Start, submit, store: Redis) -> None:
        function = worker()
        job_id = submit("return")
        function.deliver(job_id)
        before = store.client.info("commandstats")["cmdstat_evalsha"]["calls"]
        assert function.deliver(job_id) == 204
        assert store.client.info("commandstats")["cmdstat_evalsha"]["calls"] == before + 1

    def test_a_worker_goes_on_with_what_is_due_oldest_first(self, worker: Start, submit, status, effects: Path) -> None:
        jobs = [submit("return") for _ in range(6)]
        worker().deliver(jobs[3])
        assert {status(job_id)["status"] for job_id in jobs} == {"complete"}
        order = [line.split()[0] for line in effects.read_text().splitlines()]
        assert order == [jobs[3], *jobs[:3], *jobs[4:]]

    def test_but_not_for_longer_than_it_may(self, worker: Start, submit, status) -> None:
        jobs = [submit("sleep 0.2") for _ in range(3)]
        worker(WORKER_DRAIN_SECONDS="0").deliver(jobs[0])
        assert [status(job_id)["status"] for job_id in jobs] == ["complete", "submitted", "submitted"]


class TestLeases:
    def test_a_killed_workers_job_is_done_by_another_once(
        self, worker: Start, submit, status, endpoint: Start, effects: Path
    ) -> None:
        first = worker(JOB_LEASE_SECONDS="1", WORKER_IP="127.0.0.1")
        job_id = submit("sleep 1.2")
        thread = deliver_soon(first, job_id)
        eventually(lambda: begun(effects)[job_id] == 1)
        first.kill()
        thread.join()
        second = worker(WORKER_IP="127.0.0.2")
        assert second.deliver(job_id) == 204
        assert status(job_id)["status"] == "in progress", "the lease protects it until it runs out"
        sweep_until(endpoint, lambda: status(job_id)["status"] == "submitted")
        assert status(job_id)["error"]["type"] == "LeaseExpired"
        second.deliver(job_id)
        job = status(job_id)
        assert (job["status"], job["attempt"], job["worker-ip"]) == ("complete", 2, "127.0.0.2")
        assert begun(effects) == {job_id: 2}

    def test_the_work_dies_with_its_worker(self, worker: Start, submit, effects: Path) -> None:
        function = worker()
        thread = deliver_soon(function, submit("sleep 60"))
        eventually(lambda: begun(effects))
        assert working_processes(effects)
        function.kill()
        thread.join()
        eventually(lambda: not working_processes(effects))

    def test_a_poison_job_that_kills_workers_ends_as_failed(
        self, worker: Start, submit, status, endpoint: Start, effects: Path
    ) -> None:
        job_id = submit("sleep 60")
        for attempt in (1, 2, 3):
            function = worker(JOB_LEASE_SECONDS="0.5")
            thread = deliver_soon(function, job_id)
            eventually(lambda attempt=attempt: begun(effects)[job_id] == attempt)
            function.kill()
            thread.join()
            sweep_until(endpoint, lambda: status(job_id)["status"] != "in progress")
        assert (status(job_id)["status"], status(job_id)["attempt"]) == ("failed", 3)

    @pytest.mark.parametrize("work", ["sleep 600", "hold-the-gil 600"])
    def test_work_of_any_kind_keeps_its_lease(
        self, worker: Start, submit, store: Redis, effects: Path, work: str
    ) -> None:
        function = worker(JOB_LEASE_SECONDS="0.6")
        job_id = submit(work)
        thread = deliver_soon(function, job_id)
        eventually(lambda: begun(effects)[job_id] == 1)
        for _ in range(5):
            until = store.client.zscore("jobs.leases", job_id)
            eventually(lambda until=until: store.client.zscore("jobs.leases", job_id) > until)
        function.kill()
        thread.join()

    def test_a_zombies_late_finish_is_refused_and_logged(
        self, worker: Start, submit, status, endpoint: Start, effects: Path
    ) -> None:
        zombie = worker(JOB_LEASE_SECONDS="0.5", WORKER_IP="127.0.0.1")
        job_id = submit("sleep 1")
        thread = deliver_soon(zombie, job_id)
        eventually(lambda: begun(effects)[job_id] == 1)
        os.killpg(zombie.process.pid, signal.SIGSTOP)
        sweep_until(endpoint, lambda: status(job_id)["status"] == "submitted")
        worker(WORKER_IP="127.0.0.2").deliver(job_id)
        done = status(job_id)
        os.killpg(zombie.process.pid, signal.SIGCONT)
        thread.join()
        eventually(lambda: "late finish refused" in zombie.log())
        assert status(job_id) == done
        assert (done["attempt"], done["worker-ip"]) == (2, "127.0.0.2")

    def test_a_result_survives_a_restart_of_redis(
        self, worker: Start, submit, status, store: Redis, effects: Path
    ) -> None:
        store.client.config_set("appendfsync", "always")
        function = worker()
        job_id = submit("sleep 1")
        thread = deliver_soon(function, job_id)
        eventually(lambda: begun(effects)[job_id] == 1)
        store.kill()
        time.sleep(1.5)
        store.start()
        thread.join()
        assert (status(job_id)["status"], status(job_id)["attempt"]) == ("complete", 1)


class TestCancel:
    def cancel(self, endpoint: Start, job_id: str) -> int:
        return endpoint("cancel_job").request("POST", f"/cancel_job?job_id={job_id}").status

    def test_a_waiting_job_is_cancelled_at_once(self, worker: Start, submit, status, endpoint, effects: Path) -> None:
        job_id = submit("return")
        assert self.cancel(endpoint, job_id) == 200
        assert status(job_id)["status"] == "cancelled"
        assert self.cancel(endpoint, job_id) == 200, "a call that is repeated because its answer was lost"
        assert worker().deliver(job_id) == 204
        assert not begun(effects)

    @pytest.mark.parametrize("work", ["report 600", "watch-cancelled"])
    def test_a_running_job_learns_of_it(self, worker: Start, submit, status, endpoint, effects: Path, work) -> None:
        function = worker()
        job_id = submit(work)
        thread = deliver_soon(function, job_id)
        eventually(lambda: begun(effects))
        assert self.cancel(endpoint, job_id) == 202
        thread.join()
        assert status(job_id)["status"] == "cancelled"

    def test_work_that_is_done_all_the_same_is_complete(self, worker: Start, submit, status, endpoint, effects) -> None:
        function = worker()
        job_id = submit("ignore-cancelled 0.5")
        thread = deliver_soon(function, job_id)
        eventually(lambda: begun(effects))
        assert self.cancel(endpoint, job_id) == 202
        thread.join()
        assert (status(job_id)["status"], status(job_id)["result"]) == ("complete", "done anyway")

    def test_a_job_that_has_ended_says_so(self, worker: Start, submit, endpoint) -> None:
        job_id = submit("return")
        worker().deliver(job_id)
        answer = endpoint("cancel_job").request("POST", f"/cancel_job?job_id={job_id}")
        assert answer.status == 409
        assert "complete" in answer.json()["detail"]


class TestRetry:
    def retry(self, endpoint: Start, job_id: str) -> tuple[int, dict[str, object]]:
        answer = endpoint("retry_job").request("POST", f"/retry_job?job_id={job_id}")
        return answer.status, answer.json()

    def test_a_failed_job_has_all_its_attempts_again(self, worker: Start, submit, status, endpoint) -> None:
        function = worker(JOB_MAX_ATTEMPTS="2", JOB_BACKOFF_SECONDS="0")
        job_id = submit("raise-until-attempt 4")
        eventually(lambda: function.deliver(job_id) == 204 and status(job_id)["status"] == "failed")
        assert [job["id"] for job in endpoint("failed_jobs").request("GET").json()] == [job_id]
        code, job = self.retry(endpoint, job_id)
        assert (code, job["status"]) == (202, "submitted")
        assert "error" not in job
        eventually(lambda: function.deliver(job_id) == 204 and status(job_id)["status"] == "complete")
        assert status(job_id)["attempt"] == 4
        assert endpoint("failed_jobs").request("GET").json() == []

    def test_a_cancelled_job_can_be_submitted_again(self, worker: Start, submit, status, endpoint) -> None:
        job_id = submit("return")
        endpoint("cancel_job").request("POST", f"/cancel_job?job_id={job_id}")
        assert self.retry(endpoint, job_id)[0] == 202
        worker().deliver(job_id)
        assert status(job_id)["status"] == "complete"

    def test_any_other_says_its_status(self, worker: Start, submit, endpoint) -> None:
        job_id = submit("return")
        code, answer = self.retry(endpoint, job_id)
        assert (code, "submitted" in answer["detail"]) == (409, True)
        worker().deliver(job_id)
        assert self.retry(endpoint, job_id)[0] == 409


class TestDrain:
    def test_a_running_job_gets_the_grace_period(self, worker: Start, submit, status, effects: Path) -> None:
        function = worker(WORKER_GRACE_SECONDS="100")
        job_id, waiting_id = submit("sleep 1"), submit("return")
        thread = deliver_soon(function, job_id)
        eventually(lambda: begun(effects))
        function.process.terminate()
        assert function.process.wait(PATIENCE_S) == 0
        thread.join()
        assert status(job_id)["status"] == "complete"
        assert status(waiting_id)["status"] == "submitted", "no new work after SIGTERM"

    def test_and_is_then_handed_back_at_once(self, worker: Start, submit, status, effects: Path) -> None:
        function = worker(WORKER_GRACE_SECONDS="0.5", JOB_LEASE_SECONDS="60")
        job_id = submit("sleep 60")
        thread = deliver_soon(function, job_id)
        eventually(lambda: begun(effects))
        function.process.terminate()
        assert function.process.wait(PATIENCE_S) == 0
        thread.join()
        job = status(job_id)
        assert (job["status"], job["attempt"]) == ("submitted", 1)
        assert "failures" not in job, "it was not the job's fault"

    def test_but_not_for_ever(
        self, worker: Start, submit, status, effects: Path, store: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job_id = submit("sleep 60")
        store.client.hset(f"job.{job_id}", "releases", 9)
        for n in (1, 2):
            function = worker(WORKER_GRACE_SECONDS="0", JOB_LEASE_SECONDS="60", JOB_BACKOFF_SECONDS="0")
            thread = deliver_soon(function, job_id)
            eventually(lambda n=n: begun(effects)[job_id] == n)
            function.process.terminate()
            assert function.process.wait(PATIENCE_S) == 0
            thread.join()
        job = status(job_id)
        assert (job["status"], job["releases"], job["failures"]) == ("submitted", 10, 1)
        assert job["error"]["type"] == "HandedBack"
        assert "WORKER_GRACE_SECONDS" in job["error"]["message"]
        assert [(end["attempt"], end["why"], end["worker-ip"]) for end in job["attempts-ended"]] == [
            (1, "released", "127.0.0.1"),
            (2, "HandedBack", "127.0.0.1"),
        ]
        assert all(end["started-at"] <= end["ended-at"] for end in job["attempts-ended"])


class TestMaxRunning:
    """JOB_MAX_RUNNING holds over all workers, and no job waits for the sweeper because of it."""

    def test_no_more_jobs_are_in_progress_at_once_and_all_get_done(self, worker: Start, submit, status) -> None:
        workers = [worker(JOB_MAX_RUNNING="2", WORKER_IP=f"127.0.0.{n}") for n in (1, 2, 3, 4)]
        jobs = [submit("sleep 0.1") for _ in range(16)]
        threads = [deliver_soon(function, job_id) for job_id in jobs for function in workers]
        eventually(lambda: all(status(job_id)["status"] == "complete" for job_id in jobs), 60)
        for thread in threads:
            thread.join()
        records = [status(job_id) for job_id in jobs]
        moments = sorted(change for job in records for change in ((job["started-at"], 1), (job["finished-at"], -1)))
        running = [sum(step for _, step in moments[: n + 1]) for n in range(len(moments))]
        assert max(running) == 2
        assert all(job["attempt"] == 1 for job in records)

    def test_a_worker_that_stops_announces_what_may_begin_now(self, worker: Start, submit, status) -> None:
        announced = []
        broker = Receiver(lambda _path, headers, _body: announced.append(headers["ce-subject"]) or 202)
        first, second, third = submit("return"), submit("return"), submit("return")
        function = worker(JOB_MAX_RUNNING="1", WORKER_DRAIN_SECONDS="0", K_SINK=broker.url, JOB_EVENTS="none")
        assert function.deliver(first) == 204
        eventually(lambda: announced)
        broker.stop()
        assert announced == [second]
        assert [status(job_id)["status"] for job_id in (first, second, third)] == ["complete", "submitted", "submitted"]

    def test_the_sweeper_announces_only_what_may_begin(self, worker: Start, start: Start, submit, status) -> None:
        announced = []
        broker = Receiver(lambda _path, headers, _body: announced.append(headers["ce-subject"]) or 202)
        running, *waiting = [submit(what) for what in ("sleep 60", "return", "return")]
        bound = {"JOB_MAX_RUNNING": "1", "JOB_LEASE_SECONDS": "4"}
        function = worker(**bound)
        thread = deliver_soon(function, running)
        eventually(lambda: status(running)["status"] == "in progress")
        sweeper = start("sweeper", **bound, K_SINK=broker.url, JOB_EVENTS="none", SWEEP_SECONDS="0").ready()
        time.sleep(2.5)
        assert sweeper.request("POST").status == 204
        assert not announced
        function.kill()
        thread.join()
        eventually(lambda: sweeper.request("POST").status == 204 and announced)
        broker.stop()
        assert set(announced) <= {*waiting, running}
        assert len(set(announced)) == 1, "one may begin, in the pass that takes the job of the dead worker back"


class TestDeadLetters:
    def test_the_job_is_due_again_with_backoff_however_often_the_letter_comes(
        self, start: Start, submit, store: Redis
    ) -> None:
        dead_letter = start("dead_letter", JOB_BACKOFF_SECONDS="30").ready()
        job_id = submit("return")
        began_at = time.time()
        for _ in range(3):
            assert dead_letter.deliver(job_id, knativeerrorcode="500", knativeerrordata="boom") == 204
        assert began_at + 30 <= store.client.zscore("jobs.due", job_id) <= time.time() + 30
        assert "'knativeerrorcode': '500'" in dead_letter.log()
        assert store.record(job_id)["status"] == "submitted"

    def test_a_job_that_has_gone_on_is_left_alone(self, endpoint: Start, worker: Start, submit, status) -> None:
        job_id = submit("return")
        worker().deliver(job_id)
        assert endpoint("dead_letter").deliver(job_id) == 204
        assert status(job_id)["status"] == "complete"


def test_progress_shows_while_the_work_runs(worker: Start, submit, status, effects: Path) -> None:
    function = worker()
    job_id = submit("report 600")
    thread = deliver_soon(function, job_id)
    seen = [eventually(lambda: status(job_id).get("progress"))]
    seen.append(eventually(lambda: status(job_id)["progress"] > seen[0] and status(job_id)["progress"]))
    assert status(job_id)["progress-message"].startswith("step")
    assert 0 < seen[0] < seen[1] < 1
    function.kill()
    thread.join()


def test_jobs_that_have_ended_are_removed_when_their_retention_is_over(
    worker: Start, submit, store: Redis, endpoint: Start
) -> None:
    job_id = submit("return")
    worker(JOB_RETENTION_SECONDS="0.2").deliver(job_id)
    assert store.record(job_id)
    sweep_until(endpoint, lambda: not store.record(job_id))
    assert {key for key in store.client.keys("*") if "jobs.minute." not in key} == {
        "jobs.last",
        "jobs.totals",
        "jobs.clock",
        "jobs.checked",
    }
    assert endpoint("jobs_status").request("GET", f"/jobs_status?job_id={job_id}").status == 404


def test_one_sweep_removes_all_whose_retention_is_over(endpoint: Start, store: Redis) -> None:
    over, kept = [str(uuid.uuid4()) for _ in range(2500)], str(uuid.uuid4())
    with store.client.pipeline() as pipe:
        for job_id in (*over, kept):
            record = {"id": job_id, "status": "complete", "start": "1", "end": "2", "submitted-at": "1000000000.0"}
            pipe.hset(f"job.{job_id}", mapping=record)
            pipe.zadd("jobs.complete", {job_id: 1e9})
            pipe.zadd("jobs.retention", {job_id: time.time() + (60 if job_id == kept else -60)})
        pipe.execute()
    assert endpoint("sweeper").request("POST").status == 204
    assert store.client.keys("job.*") == [f"job.{kept}"]
    assert store.client.zrange("jobs.complete", 0, -1) == [kept]


def test_two_workers_share_the_jobs_and_each_shows_its_address(
    worker: Start, submit, status, effects: Path, tmp_path: Path
) -> None:
    workers = [worker(WORKER_IP=f"127.0.0.{n}") for n in (1, 2)]
    jobs = [submit(f"wait-for {tmp_path}/go") for _ in range(10)]
    threads = [deliver_soon(function, job_id) for function, job_id in zip(workers, jobs, strict=False)]
    eventually(lambda: len(begun(effects)) == 2)
    (tmp_path / "go").touch()
    for thread in threads:
        thread.join()
    split = Counter(str(status(job_id)["worker-ip"]) for job_id in jobs)
    assert set(split) == {"127.0.0.1", "127.0.0.2"}
    assert sum(split.values()) == 10


@pytest.mark.parametrize(
    "work",
    [
        {"JOB_WORK": "sample_work:work"},
        {"JOB_WORK": "unruly_work:at_once", "WORKER_CONCURRENCY": "8"},
    ],
    ids=["a function", "async def, with a WORKER_CONCURRENCY"],
)
def test_a_jobsink_does_the_job_of_its_event_file(
    start: Start, submit, status, tmp_path: Path, effects: Path, work: dict[str, str]
) -> None:
    does = "return" if "sample" in work["JOB_WORK"] else "sleep 0.1"
    job_id = submit(does)
    other_id = submit(does)
    event = {"specversion": "1.0", "type": "dev.knative-jobs.job.submitted", "source": "/jobs", "id": "1"}
    (tmp_path / "event").write_text(json.dumps(event | {"subject": job_id, "data": {}}))
    command = ["-m", "knative_jobs.server.jobsink", str(tmp_path / "event")]
    assert start("worker", command=command, EFFECTS=str(effects), **work).process.wait(PATIENCE_S) == 0
    assert status(job_id)["status"] == "complete"
    assert status(other_id)["status"] == "submitted", "each has its own Kubernetes Job"


def working_processes(effects: Path) -> list[str]:
    """The processes that do work for this test, told by their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        if b"knative_jobs.work.process" in command and str(effects).encode() in environment:
            found.append(process.name)
    return found
