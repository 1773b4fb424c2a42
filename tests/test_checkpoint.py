"""Work that takes longer than an attempt may: checkpoints, and continuing from them."""

import itertools
import json
import random
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from knative_jobs.testing import run
from tests import stepping_work
from tests.conftest import Function, Redis, Start, deliver_soon, eventually
from tests.stepping_work import STEPS

Submit = Callable[..., str]


@pytest.fixture
def submit(endpoint: Start, store: Redis) -> Submit:
    def submit(start: object = "", end: object = 0, **more: object) -> str:
        body = json.dumps(
            {"start": start, "end": end} | {name.replace("_", "-"): given for name, given in more.items()}
        )
        return str(endpoint("jobs").request("POST", "/jobs", body=body).json()["id"])

    return submit


@pytest.fixture
def stepping(worker: Start) -> Start:
    def stepping(work: str, **settings: str) -> Function:
        return worker(JOB_WORK=f"stepping_work:{work}", JOB_BACKOFF_SECONDS="0", **settings)

    return stepping


def done(effects: Path) -> list[list[int]]:
    """The steps of each attempt."""
    lines = [tuple(map(int, line.split())) for line in effects.read_text().splitlines()] if effects.exists() else []
    return [[step for _, step in attempt] for _, attempt in itertools.groupby(lines, lambda line: line[0])]


class TestContinuing:
    @pytest.mark.parametrize("settings", [{}, {"JOB_WORK": "stepping_work:steps_async", "WORKER_CONCURRENCY": "2"}])
    def test_each_attempt_goes_on_from_the_last_checkpoint(
        self, stepping: Start, submit: Submit, status, effects: Path, settings: dict[str, str]
    ) -> None:
        job_id = submit(5)
        function = stepping("steps") if not settings else stepping("steps_async", WORKER_CONCURRENCY="2")
        function.deliver(job_id)
        job = status(job_id)
        assert (job["status"], job["result"], job["continued"], job["attempt"]) == ("complete", STEPS, 7, 8)
        assert done(effects) == [list(range(begin, begin + 5)) for begin in range(0, STEPS, 5)]
        assert not {"failures", "error", "attempts-ended", "checkpoint"} & job.keys()

    def test_a_worker_that_is_killed_costs_no_step_that_had_a_checkpoint_for_a_second(
        self, stepping: Start, endpoint: Start, submit: Submit, status, effects: Path, store: Redis
    ) -> None:
        job_id, chance = submit(5, 0.1), random.Random(7)
        for _ in range(3):
            function = stepping("steps", JOB_LEASE_SECONDS="1")
            thread = deliver_soon(function, job_id)
            further = int(store.record(job_id).get("checkpoint", 0)) + chance.randint(6, 10)  # it continues in between
            eventually(lambda further=further: int(store.record(job_id).get("checkpoint", 0)) >= further)
            function.kill()
            thread.join()
            eventually(
                lambda: endpoint("sweeper").request("POST").status == 204 and status(job_id)["status"] == "submitted"
            )
        stepping("steps").deliver(job_id)
        attempts = done(effects)
        assert {step for attempt in attempts for step in attempt} == set(range(STEPS))
        assert all(steps == list(range(steps[0], steps[0] + len(steps))) for steps in attempts)
        assert all(later[0] <= before[-1] + 1 for before, later in itertools.pairwise(attempts)), "none is left out"
        assert status(job_id)["result"] == STEPS

    def test_without_a_newer_checkpoint_it_is_a_failed_attempt(self, stepping: Start, submit: Submit, status) -> None:
        job_id = submit()
        stepping("never_further", JOB_MAX_ATTEMPTS="2").deliver(job_id)
        job = status(job_id)
        assert (job["status"], job["error"]["type"]) == ("failed", "NoCheckpoint")
        assert (job["attempt"], job["continued"], job["failures"]) == (3, 1, 2), "the first time it was newer"

    def test_a_job_that_is_to_be_cancelled_is_not_continued(
        self, stepping: Start, endpoint: Start, submit: Submit, status, effects: Path
    ) -> None:
        job_id = submit()
        thread = deliver_soon(stepping("cancelled_then_continues"), job_id)
        eventually(lambda: done(effects))
        assert endpoint("cancel_job").request("POST", f"/cancel_job?job_id={job_id}").status == 202
        thread.join()
        assert status(job_id)["status"] == "cancelled"

    def test_a_worker_that_is_stopped_tells_the_work_which_continues_elsewhere(
        self, stepping: Start, submit: Submit, status, effects: Path
    ) -> None:
        job_id = submit()
        function = stepping("until_told", WORKER_GRACE_SECONDS="60", JOB_TIMEOUT_SECONDS="600")
        thread = deliver_soon(function, job_id)
        eventually(lambda: done(effects))
        function.process.terminate()
        thread.join()
        job = status(job_id)
        assert (job["status"], job["continued"]) == ("submitted", 1)
        assert "releases" not in job
        stepping("until_told").deliver(job_id)
        before, after = map(int, status(job_id)["result"].split())
        assert 500 < before <= 600
        assert 0 < after <= 60, "of the grace"


class TestCheckpoints:
    @pytest.mark.parametrize("how", ["raise", "exit"])
    def test_one_outlives_the_attempt_however_that_ends(
        self, stepping: Start, submit: Submit, status, how: str
    ) -> None:
        job_id = submit(how)
        function = stepping("fails_further", JOB_MAX_ATTEMPTS="3")
        eventually(lambda: function.deliver(job_id) == 204 and status(job_id)["status"] == "complete")
        assert (status(job_id)["result"], status(job_id)["attempt"]) == (3, 3)

    def test_a_retry_goes_on_from_it(self, stepping: Start, endpoint: Start, submit: Submit, status) -> None:
        job_id = submit("raise")
        function = stepping("fails_further", JOB_MAX_ATTEMPTS="1")
        function.deliver(job_id)
        assert (status(job_id)["status"], status(job_id)["checkpoint"]) == ("failed", 1)
        for _ in range(2):
            endpoint("retry_job").request("POST", f"/retry_job?job_id={job_id}")
            function.deliver(job_id)
        assert (status(job_id)["status"], status(job_id)["result"]) == ("complete", 3)

    def test_one_that_is_too_long_is_an_error_of_the_work(self, stepping: Start, submit: Submit, status) -> None:
        job_id = submit()
        stepping("too_much", JOB_MAX_ATTEMPTS="1").deliver(job_id)
        assert status(job_id)["error"]["message"] == "it has over 65536 bytes as JSON"

    def test_the_work_knows_how_much_time_is_left(self, stepping: Start, submit: Submit, status) -> None:
        job_id = submit(timeout=50)
        stepping("times", JOB_TIMEOUT_SECONDS="100").deliver(job_id)
        first, then = status(job_id)["result"]
        assert first - 0.2 >= then
        assert 0 < then < first <= 50


class TestWorkOfAService:
    @pytest.fixture
    def service(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """A service that counts to 3, one in each request."""
        asked: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                count = asked[-1].get("checkpoint", 0) + 1
                lines: list[dict[str, object]] = [{"checkpoint": count}, {"continue": True}]
                if count == 3:
                    lines = [{"result": count}]
                if asked[-1]["start"] == "too much":
                    lines = [{"checkpoint": "x" * 70_000}]
                self.send_response(200)
                self.send_header("Content-Type", "application/x-ndjson")
                self.end_headers()
                self.wfile.write("".join(f"{json.dumps(line)}\n" for line in lines).encode())

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", asked
        server.shutdown()
        server.server_close()

    def test_it_continues_with_what_it_answers(
        self, worker: Start, submit: Submit, status, service: tuple[str, list[dict[str, Any]]]
    ) -> None:
        url, asked = service
        job_id = submit()
        worker(JOB_WORK=url, JOB_TIMEOUT_SECONDS="100").deliver(job_id)
        job = status(job_id)
        assert (job["status"], job["result"], job["continued"]) == ("complete", 3, 2)
        assert [request.get("checkpoint") for request in asked] == [None, 1, 2]
        assert all(request["time-left"] == 100 for request in asked)

    def test_a_checkpoint_that_is_too_long_fails_the_job(
        self, worker: Start, submit: Submit, status, service: tuple[str, list[dict[str, Any]]]
    ) -> None:
        job_id = submit("too much")
        worker(JOB_WORK=service[0]).deliver(job_id)
        assert (status(job_id)["status"], status(job_id)["error"]["type"]) == ("failed", "BadResponse")


class TestInATestOfOnesOwn:
    def test_an_attempt_may_begin_from_a_checkpoint_and_tells_of_its_own(self, monkeypatch, tmp_path: Path) -> None:
        monkeypatch.setenv("EFFECTS", str(tmp_path / "effects"))
        ended = run(stepping_work.steps, start=2, end=0, checkpoint=30)
        assert (ended.outcome, ended.checkpoints, ended.error) == ("continue", [31, 32], None)
        ended = run(stepping_work.steps, start=50, end=0, checkpoint=38)
        assert (ended.outcome, ended.result) == ("complete", STEPS)

    def test_the_worker_may_be_stopping(self, monkeypatch, tmp_path: Path) -> None:
        monkeypatch.setenv("EFFECTS", str(tmp_path / "effects"))
        ended = run(stepping_work.until_told, stopping=True, seconds=7)
        assert (ended.outcome, ended.checkpoints) == ("continue", ["7 7"])
