"""What the work says, printed or logged: it is in the worker's log, with the job that said it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Function, Redis, Start

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
Submit = Callable[[str], str]


@pytest.fixture
def submit(endpoint: Start, store: Redis) -> Submit:
    def submit(start: str) -> str:
        headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        body = json.dumps({"start": start, "end": 1})
        return str(endpoint("jobs").request("POST", "/jobs", body=body, headers=headers).json()["id"])

    return submit


@pytest.fixture
def worker(start: Start, tmp_path: Path) -> Start:
    def worker(**settings: str) -> Function:
        given = {"JOB_WORK": "unruly_work:work", "EFFECTS": str(tmp_path / "effects"), "JOB_MAX_ATTEMPTS": "1"}
        return start("worker", **given, **settings).ready()

    return worker


def status(endpoint: Start, job_id: str) -> dict[str, object]:
    return dict(endpoint("jobs_status").request("GET", f"/jobs_status?job_id={job_id}").json())


def said(function: Function) -> list[dict[str, object]]:
    """The lines of a JSON log that are the work's."""
    lines = [json.loads(line) for line in function.log().splitlines() if line.startswith("{")]
    return [line for line in lines if not line["logger"].startswith("knative_jobs")]


class TestInACluster:
    def test_each_line_is_json_with_its_job_in_the_order_of_saying(self, worker: Start, submit: Submit) -> None:
        function = worker(K_SERVICE="worker")
        job_id = submit("log_and_print")
        function.deliver(job_id)
        lines = [line for line in said(function) if "job_id" in line]
        assert [(line["severity"], line["logger"], line["message"]) for line in lines] == [
            ("INFO", "output", "printed first"),
            ("INFO", "unruly", "logged second"),
            ("INFO", "output", "printed third"),
            ("INFO", "output", "fourth, by a child"),
            ("WARNING", "root", "logged fifth"),
            ("ERROR", "unruly", "caught"),
            ("INFO", "output", "the last, without a line's end"),
        ]
        assert {(line["job_id"], line["attempt"], line["job_kind"], line["trace_id"]) for line in lines} == {
            (job_id, 1, "default", TRACE)
        }
        assert "ValueError: sixth" in lines[5]["exception"]

    def test_two_jobs_are_told_apart(self, worker: Start, submit: Submit) -> None:
        function = worker(K_SERVICE="worker")
        jobs = {submit(f"say I am {name}"): f"I am {name}" for name in ("one", "two", "three")}
        for job_id in jobs:
            function.deliver(job_id)
        assert {line["job_id"]: line["message"] for line in said(function) if "job_id" in line} == jobs

    def test_what_is_said_while_the_work_is_imported_is_of_no_job(self, worker: Start) -> None:
        (line,) = said(worker(K_SERVICE="worker"))
        assert (line["message"], line.keys()) == ("imported", {"time", "severity", "logger", "message"})


class TestOnATerminal:
    def test_each_line_is_as_it_was_said_behind_its_job(self, worker: Start, submit: Submit) -> None:
        function = worker()
        job_id = submit("log_and_print")
        function.deliver(job_id)
        who = f"job {job_id} attempt 1 |"
        log = function.log()
        assert f"\n{who} printed first\nINFO {who} logged second\n{who} printed third\n{who} fourth" in log
        assert f"\nERROR {who} caught\n    Traceback" in log
        assert "\n    ValueError: sixth\n" in log
        assert "\nwork | imported\n" in log


class TestNothingIsLost:
    def test_the_last_words_of_a_process_that_dies(self, worker: Start, submit: Submit) -> None:
        function = worker(K_SERVICE="worker")
        job_id = submit("last_words")
        function.deliver(job_id)
        last = [(line["message"], line["job_id"]) for line in said(function) if "job_id" in line]
        assert last == [("last words", job_id), ("last record", job_id)]

    def test_a_flood_of_lines(self, worker: Start, submit: Submit, endpoint: Start) -> None:
        function = worker(K_SERVICE="worker", JOB_LEASE_SECONDS="1")
        job_id = submit("flood 4")
        function.deliver(job_id)
        assert status(endpoint, job_id)["status"] == "complete"
        assert sum(line.get("job_id") == job_id for line in said(function)) == 4 * 1024

    def test_a_line_without_an_end_in_sight(self, worker: Start, submit: Submit) -> None:
        function = worker(K_SERVICE="worker")
        function.deliver(submit("long_line"))
        lines = [str(line["message"]) for line in said(function) if "job_id" in line]
        assert "".join(lines[:-1]) == "a" * 600_000 + "z"
        assert lines[-1] == "b" * 32 * 1024, "a record is cut"

    def test_a_thread_that_goes_on_printing_is_in_nobodys_way(
        self, worker: Start, submit: Submit, endpoint: Start
    ) -> None:
        function = worker()
        jobs = [submit("leave_printing"), submit("own"), submit("say hello")]
        for job_id in jobs:
            function.deliver(job_id)
        assert [status(endpoint, job_id)["result"] for job_id in jobs] == [f"result of {job_id}" for job_id in jobs]


class TestNothingIsForged:
    FORGED = (
        '["complete", "JOB", 1, "\\"forged\\""]',
        '\x1e{"message": "forged", "severity": "CRITICAL", "logger": "root"}',
        '{"severity": "CRITICAL", "message": "forged", "job_id": "another"}',
        "\x1b[2K\rCRITICAL forged",
        "\u2028CRITICAL forged",
    )

    @pytest.mark.parametrize("k_service", ["", "worker"])
    def test_no_line_is_a_message_or_a_record(
        self, worker: Start, submit: Submit, endpoint: Start, k_service: str
    ) -> None:
        function = worker(K_SERVICE=k_service)
        job_id = submit(f"forge {json.dumps(self.FORGED)}")
        function.deliver(job_id)
        assert status(endpoint, job_id)["result"] == f"result of {job_id}"
        log = function.log()
        assert "\x1b" not in log
        assert log.count("forged") >= 3 * len(self.FORGED)
        if k_service:
            lines = [line for line in said(function) if "forged" in str(line["message"])]
            assert {(line["severity"], line["job_id"]) for line in lines} == {("INFO", job_id)}
        else:
            forged = [line for line in log.splitlines() if "forged" in line]
            assert all(line.removeprefix("INFO ").startswith(f"job {job_id} attempt 1 | ") for line in forged)

    def test_what_nobody_could_read_is_passed_on_all_the_same(
        self, worker: Start, submit: Submit, endpoint: Start
    ) -> None:
        function = worker()
        job_id = submit("write_bytes")
        function.deliver(job_id)
        assert status(endpoint, job_id)["result"] == f"result of {job_id}"
        assert "| caf\\xe9\n" in function.log()
        assert "| no record\n" in function.log(), "a mark, but no JSON behind it"
