"""The log of a job: what its work prints and logs is kept with it, by attempt, and can be followed."""

import json
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from knative_jobs.store import state
from knative_jobs.store.state import Claim
from tests.conftest import (
    UNKNOWN_ID,
    Function,
    Redis,
    Start,
    connected,
    deliver_soon,
    eventually,
    new_job,
    problem,
)

Submit = Callable[..., str]


@pytest.fixture
def submit(endpoint: Start, store: Redis) -> Submit:
    def submit(start: str, **given: object) -> str:
        body = json.dumps({"start": start, "end": 1} | given)
        return str(endpoint("jobs").request("POST", "/jobs", body=body).json()["id"])

    return submit


@pytest.fixture
def worker(start: Start, tmp_path: Path) -> Start:
    def worker(work: str = "talking_work:work", **settings: str) -> Function:
        given = {"JOB_WORK": work, "EFFECTS": str(tmp_path / "effects"), "JOB_BACKOFF_SECONDS": "0"}
        return start("worker", **given, **settings).ready()

    return worker


def log(endpoint: Start, job_id: str, query: str = "") -> str:
    answer = endpoint("job_log").request("GET", f"/job_log?job_id={job_id}{query}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    return answer.data.decode()


def follow(endpoint: Start, job_id: str, last_id: str = "", query: str = "") -> Iterator[dict[str, str]]:
    """The events of the stream, with the lines of their data."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    path = f"/job_log?job_id={job_id}&follow=1{query}"
    answer = endpoint("job_log").request("GET", path, headers=headers, preload_content=False)
    assert answer.headers["Content-Type"] == "text/event-stream"
    text = b""
    for piece in answer.stream(1):
        text += piece
        if text.endswith(b"\n\n"):
            fields = [line.partition(": ")[::2] for line in text.decode().splitlines() if line and line[0] != ":"]
            event = {name: value for name, value in fields if name != "data"}
            if data := [value for name, value in fields if name == "data"]:
                yield event | {"data": "\n".join(data)}
            text = b""


class TestWhatIsKept:
    def test_what_was_printed_and_logged_in_its_order(self, endpoint: Start, worker: Start, submit: Submit) -> None:
        job_id = submit("say")
        worker().deliver(job_id)
        first, second, third, *traceback = log(endpoint, job_id, "&attempt=1").splitlines()
        assert first == "printed first, Jürgen"
        when, said = second[:24], second[24:]
        assert time.strptime(when[:19], "%Y-%m-%dT%H:%M:%S")
        assert (when[19], when[23], said) == (".", "Z", " INFO talking: logged second")
        assert third.endswith("Z ERROR talking: caught")
        assert traceback[0].startswith("Traceback")
        assert traceback[-2:] == ["ValueError: third", "the last, without the end of a line"]

    def test_work_that_says_nothing_has_an_empty_log_and_costs_nothing(
        self, endpoint: Start, worker: Start, submit: Submit, store: Redis
    ) -> None:
        job_id = submit("nothing")
        worker().deliver(job_id)
        assert log(endpoint, job_id) == ""
        assert not store.client.exists(f"jobs.log.{job_id}")

    def test_attempts_are_told_apart(self, endpoint: Start, worker: Start, submit: Submit) -> None:
        job_id = submit("fail-twice")
        function = worker()
        for _ in range(3):
            function.deliver(job_id)
        said = [f"this is attempt {number}" for number in (1, 2, 3)]
        whole = [line for number in (1, 2, 3) for line in (f"--- attempt {number} ---", said[number - 1])]
        assert log(endpoint, job_id).splitlines() == whole
        assert log(endpoint, job_id, "&attempt=2").splitlines() == [said[1]]
        assert log(endpoint, job_id, "&attempt=4") == ""

    def test_the_last_lines_of_a_process_that_died(self, endpoint: Start, worker: Start, submit: Submit) -> None:
        job_id = submit("die", **{"max-attempts": 1})
        worker().deliver(job_id)
        assert log(endpoint, job_id, "&attempt=1") == "about to die\n"

    def test_only_the_end_of_a_long_log_beginning_with_a_whole_line(
        self, endpoint: Start, worker: Start, submit: Submit, store: Redis
    ) -> None:
        job_id = submit("much 2")
        worker(JOB_LOG_BYTES="10000").deliver(job_id)
        lines = log(endpoint, job_id, "&attempt=1").splitlines()
        numbers = [int(line.removeprefix("line ")) for line in lines]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert lines[-1] == "line 99999"
        assert 9_900 < len("\n".join(lines)) <= 20_000
        kept = sum(map(len, store.client.lrange(f"jobs.log.{job_id}", 0, -1)))
        assert kept < 20_200

    def test_jobs_of_one_process_at_the_same_time_have_a_log_each(
        self, endpoint: Start, worker: Start, submit: Submit
    ) -> None:
        jobs = {submit(f"name {name}"): name for name in ("one", "two", "three")}
        function = worker("talking_work:several", WORKER_CONCURRENCY="3")
        function.deliver(next(iter(jobs)))
        eventually(lambda: len(endpoint("completed_jobs").request("GET").json()) == 3)
        for job_id, name in jobs.items():
            assert log(endpoint, job_id, "&attempt=1").splitlines() == [f"{name} begins", f"{name} ends"]

    def test_nothing_where_the_operator_says_so(
        self, endpoint: Start, worker: Start, submit: Submit, store: Redis
    ) -> None:
        job_id = submit("say")
        function = worker(JOB_LOG_BYTES="0")
        function.deliver(job_id)
        assert log(endpoint, job_id) == ""
        assert "printed first" in function.log(), "the log of the worker still has it"
        assert not store.client.exists(f"jobs.log.{job_id}")

    def test_what_a_running_job_has_said_within_seconds(
        self, endpoint: Start, worker: Start, submit: Submit, tmp_path: Path
    ) -> None:
        job_id = submit(f"wait {tmp_path / 'go'}")
        under_way = deliver_soon(worker(), job_id)
        eventually(lambda: log(endpoint, job_id) == "--- attempt 1 ---\nwaiting\n")
        (tmp_path / "go").touch()
        under_way.join()
        assert log(endpoint, job_id, "&attempt=1") == "waiting\ngone\n"

    def test_no_more_than_one_write_a_second_however_often_progress_is_reported(
        self, worker: Start, submit: Submit, store: Redis
    ) -> None:
        job_id = submit("report 3")
        began = time.monotonic()
        worker().deliver(job_id)
        took = time.monotonic() - began
        assert 1 < len(store.client.lrange(f"jobs.log.{job_id}", 0, -1)) <= took + 2

    def test_the_log_goes_with_its_job(
        self, endpoint: Start, worker: Start, submit: Submit, store: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deleted, purged, lost = submit("say"), submit("say", retention=0.1), submit("say")
        function = worker()
        for job_id in (deleted, purged, lost):
            function.deliver(job_id)
            assert store.client.exists(f"jobs.log.{job_id}")
        assert endpoint("delete_job").request("POST", f"/delete_job?job_id={deleted}").status == 204
        store.client.delete(f"job.{lost}")
        with connected(store, "sweeper", monkeypatch):
            while store.client.exists(f"job.{purged}"):
                state.purge()
            state.check()
        assert store.client.keys("jobs.log.*") == []


class TestFollowing:
    def test_a_stream_has_what_was_said_and_ends_with_the_job(
        self, endpoint: Start, worker: Start, submit: Submit, tmp_path: Path
    ) -> None:
        job_id = submit(f"wait {tmp_path / 'go'}")
        under_way = deliver_soon(worker(), job_id)
        events = follow(endpoint, job_id)
        first = next(events)
        assert first["data"].splitlines() == ["--- attempt 1 ---", "waiting"]
        (tmp_path / "go").touch()
        second, end = events
        assert second["data"] == "gone"
        assert (end["event"], end["data"]) == ("end", "complete")
        under_way.join()
        assert [event["data"] for event in follow(endpoint, job_id, first["id"])] == ["gone", "complete"]
        again = endpoint("job_log").request(
            "GET", f"/job_log?job_id={job_id}&follow=1", headers={"Last-Event-ID": end["id"]}
        )
        assert again.status == 204, "no EventSource comes back after that"

    def test_the_next_attempt_is_announced_to_who_follows(self, endpoint: Start, worker: Start, submit: Submit) -> None:
        job_id = submit("fail-twice")
        function = worker()
        for _ in range(3):
            function.deliver(job_id)
        whole, end = follow(endpoint, job_id)
        assert whole["data"] + "\n" == log(endpoint, job_id)
        only, _ = follow(endpoint, job_id, query="&attempt=2")
        assert only["data"] == "this is attempt 2"
        assert end["data"] == "complete"


class TestFaults:
    def test_a_part_that_was_kept_is_not_kept_twice(
        self, endpoint: Start, store: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The answer to a heartbeat may be lost: then the part comes once more."""
        job_id = "00000000-0000-4000-8000-000000000001"
        with connected(store, "api", monkeypatch):
            state.submit([new_job(job_id)])
            held = state.claim(job_id, "127.0.0.1")
            assert isinstance(held, Claim)
            for _ in range(2):
                assert state.renew(held, said=(b"one\n", 0)) == "renewed"
            assert state.renew(held, said=(b"two\n", 4)) == "renewed"
            assert log(endpoint, job_id, "&attempt=1") == "one\ntwo\n"
            late = held._replace(attempt=0)
            assert state.renew(late, said=(b"late\n", 8)) == "lost"
            assert log(endpoint, job_id, "&attempt=1") == "one\ntwo\n"

    def test_a_log_may_be_of_any_number_of_parts(
        self, endpoint: Start, store: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As of work that says little for hours."""
        job_id, lines = "00000000-0000-4000-8000-000000000001", [f"{n:04}\n".encode() for n in range(9000)]
        with connected(store, "api", monkeypatch):
            state.submit([new_job(job_id)])
            held = state.claim(job_id, "127.0.0.1")
            assert isinstance(held, Claim)
            for n, line in enumerate(lines):
                state.renew(held, said=(line, 5 * n))
        assert log(endpoint, job_id, "&attempt=1").encode() == b"".join(lines)

    def test_records_that_the_work_has_forged_are_lines_and_harm_nobody(
        self, endpoint: Start, worker: Start, submit: Submit
    ) -> None:
        """The mark of records is known to the process that does the work."""
        job_id, other = submit("forge"), submit("say")
        function = worker()
        for each in (job_id, other):
            assert function.deliver(each) == 204
        assert {job["id"] for job in endpoint("completed_jobs").request("GET").json()} == {job_id, other}
        assert log(endpoint, job_id, "&attempt=1").count("forged") == 3
        assert log(endpoint, other, "&attempt=1").startswith("printed first")

    def test_what_somebody_else_put_there_is_no_log(self, endpoint: Start, submit: Submit, store: Redis) -> None:
        job_id = submit("say")
        for put in (lambda key: store.client.rpush(key, "no part"), lambda key: store.client.set(key, "no list")):
            store.client.delete(f"jobs.log.{job_id}")
            put(f"jobs.log.{job_id}")
            assert log(endpoint, job_id) == ""


class TestRefusals:
    @pytest.mark.parametrize(
        ("query", "status"),
        [
            ("", 400),
            ("job_id=7", 400),
            (f"job_id={UNKNOWN_ID}", 404),
            (f"job_id={UNKNOWN_ID}&follow=1", 404),
            (f"job_id={UNKNOWN_ID}&follow=yes", 400),
            (f"job_id={UNKNOWN_ID}&attempt=0", 400),
            (f"job_id={UNKNOWN_ID}&attempt=first", 400),
            (f"job_id={UNKNOWN_ID}&lines=3", 400),
        ],
    )
    def test_what_cannot_be_answered(self, endpoint: Start, store: Redis, query: str, status: int) -> None:
        problem(endpoint("job_log").request("GET", f"/job_log?{query}"), status)

    def test_a_log_needs_a_token_where_records_do(self, endpoint: Start, store: Redis) -> None:
        tokens = f"eye:read:{sha256(b'eye').hexdigest()}"
        function = endpoint("job_log", API_TOKENS=tokens)
        problem(function.request("GET", f"/job_log?job_id={UNKNOWN_ID}"), 401)
        problem(function.request("GET", f"/job_log?job_id={UNKNOWN_ID}", headers={"Authorization": "Bearer eye"}), 404)
