"""Following a job: answers that wait for its end, and the stream of its records."""

import asyncio
import json
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import urllib3

from knative_jobs.store.primary import CHECK_SECONDS
from tests.conftest import FRAMEWORK, PATIENCE_S, Function, Redis, Start, events, eventually

MANY = 1000


@pytest.fixture
def submit(endpoint: Start, store: Redis) -> Callable[[str], str]:
    def submit(start: str = "1") -> str:
        body = json.dumps({"start": start, "end": 2})
        return str(endpoint("jobs").request("POST", "/jobs", body=body).json()["id"])

    return submit


@pytest.fixture
def worker(start: Start, tmp_path: Path) -> Function:
    return start("worker", JOB_WORK="sample_work:work", EFFECTS=str(tmp_path / "effects")).ready()


@pytest.fixture
def once_followed(store: Redis) -> Callable[..., None]:
    """Do something as soon as somebody follows the job."""

    def once_followed(job_id: str, act: Callable[[], object]) -> None:
        def acting() -> None:
            eventually(lambda: store.client.pubsub_numsub(f"job.{job_id}")[0][1])
            with suppress(urllib3.exceptions.HTTPError):  # the test may end before the answer comes
                act()

        threading.Thread(target=acting, daemon=True).start()

    return once_followed


class TestWait:
    def test_it_answers_as_soon_as_the_job_ends(self, endpoint: Start, submit, worker: Function, once_followed) -> None:
        job_id = submit("return")
        status = endpoint("jobs_status")
        once_followed(job_id, lambda: worker.deliver(job_id))
        began_at = time.monotonic()
        job = status.request("GET", f"/jobs_status?job_id={job_id}&wait=60").json()
        assert job["status"] == "complete"
        assert time.monotonic() - began_at < 60, "it need not wait until the time is up"

    def test_a_job_that_has_ended_is_answered_at_once(self, endpoint: Start, submit) -> None:
        job_id = submit()
        endpoint("cancel_job").request("POST", f"/cancel_job?job_id={job_id}")
        began_at = time.monotonic()
        answer = endpoint("jobs_status").request("GET", f"/job_status?job_id={job_id}&wait=60")
        assert answer.json()["status"] == "cancelled"
        assert time.monotonic() - began_at < 60

    def test_when_the_time_is_up_it_answers_as_the_job_is(self, endpoint: Start, submit) -> None:
        began_at = time.monotonic()
        job = endpoint("jobs_status").request("GET", f"/jobs_status?job_id={submit()}&wait=0.5").json()
        assert job["status"] == "submitted"
        assert time.monotonic() - began_at >= 0.5

    @pytest.mark.parametrize("wait", ["", "-1", "61", "nan", "1_0", "soon", "1e3"])
    def test_what_is_no_time_to_wait_is_refused(self, endpoint: Start, submit, wait: str) -> None:
        answer = endpoint("jobs_status").request("GET", f"/jobs_status?job_id={submit()}&wait={wait}")
        assert (answer.status, answer.headers["Content-Type"]) == (400, "application/problem+json")
        assert "wait is a number of seconds from 0 to 60" in answer.json()["detail"]

    def test_a_redis_that_starts_again_meanwhile_is_waited_for(
        self, start: Start, submit, store: Redis, once_followed
    ) -> None:
        status, cancel, job_id = start("jobs_status").ready(), start("cancel_job").ready(), submit()

        def restart() -> None:
            store.kill()
            time.sleep(0.3)
            store.start()
            eventually(lambda: cancel.request("POST", f"/cancel_job?job_id={job_id}").status == 200)

        once_followed(job_id, restart)

        def answered() -> urllib3.BaseHTTPResponse | None:
            answer = status.request("GET", f"/jobs_status?job_id={job_id}&wait=30")
            assert answer.status in (200, 503), "the latter when it asked while Redis was away"
            return answer if answer.status == 200 else None

        assert eventually(answered).json()["status"] == "cancelled"

    def test_an_instance_that_is_stopped_answers_those_who_wait(self, start: Start, submit, once_followed) -> None:
        status, job_id = start("jobs_status").ready(), submit()
        once_followed(job_id, lambda: status.process.send_signal(signal.SIGTERM))
        began_at = time.monotonic()
        assert status.request("GET", f"/jobs_status?job_id={job_id}&wait=60").json()["status"] == "submitted"
        assert time.monotonic() - began_at < 60
        assert status.process.wait(PATIENCE_S) == 0

    def test_it_works_with_the_server_of_functions_framework_too(
        self, start: Start, submit, worker: Function, once_followed
    ) -> None:
        status, job_id = start("jobs_status", command=[FRAMEWORK], PYTHONPATH="").ready(), submit("return")
        once_followed(job_id, lambda: worker.deliver(job_id))
        assert status.request("GET", f"/?job_id={job_id}&wait=60").json()["status"] == "complete"

    def test_a_thousand_who_wait_take_no_thread_and_little_memory_each(self, start: Start, submit, endpoint) -> None:
        status, job_id = start("jobs_status").ready(), submit()
        status.request("GET", f"/jobs_status?job_id={job_id}&wait=0.1")
        server = psutil.Process(status.process.pid).children()[0]
        before, threads = server.memory_info().rss, server.num_threads()

        async def wait() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", status.port)
            writer.write(f"GET /jobs_status?job_id={job_id}&wait=60 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            writer.close()
            return head

        async def all_of_them() -> list[bytes]:
            waiting = [asyncio.create_task(wait()) for _ in range(MANY)]
            while len(server.net_connections()) < MANY:
                await asyncio.sleep(0.05)
            while (now := server.cpu_times()) and await asyncio.sleep(0.2, True) and server.cpu_times() != now:
                pass
            assert not any(task.done() for task in waiting)
            assert server.num_threads() == threads
            each = (server.memory_info().rss - before) / MANY
            assert each < 100_000, "some 30 kB when this was written; a thread has megabytes, if not all in use"
            endpoint("cancel_job").request("POST", f"/cancel_job?job_id={job_id}")
            return await asyncio.gather(*waiting)

        assert all(head.startswith(b"HTTP/1.1 200 OK") for head in asyncio.run(all_of_them()))


class TestStream:
    def test_it_has_each_change_until_the_job_ends(
        self, endpoint: Start, submit, worker: Function, once_followed, tmp_path: Path
    ) -> None:
        job_id = submit(f"steps {tmp_path}")
        stream = events(endpoint("job_events"), job_id)
        assert next(stream)[1]["status"] == "submitted"
        once_followed(job_id, lambda: worker.deliver(job_id))
        assert next(stream)[1]["status"] == "in progress"
        for step in range(1, 5):
            (tmp_path / str(step)).touch()
            assert next(stream)[1]["progress"] == step / 5
        (tmp_path / "5").touch()
        seen = [record for _, record in stream]
        assert seen[-1]["status"] == "complete"
        assert seen[-1] == endpoint("jobs_status").request("GET", f"/jobs_status?job_id={job_id}").json()

    def test_who_comes_back_is_told_of_what_is_new(
        self, endpoint: Start, submit, worker: Function, once_followed, tmp_path: Path
    ) -> None:
        job_id, function = submit(f"wait-for {tmp_path}/go"), endpoint("job_events")
        last_id, record = next(events(function, job_id))
        assert record["status"] == "submitted"
        once_followed(job_id, lambda: worker.deliver(job_id))
        stream = events(function, job_id, last_id)
        assert next(stream)[1]["status"] == "in progress"
        (tmp_path / "go").touch()
        assert [record["status"] for _, record in stream][-1] == "complete"

    def test_who_knows_the_end_need_not_come_back(self, endpoint: Start, submit) -> None:
        job_id, function = submit(), endpoint("job_events")
        endpoint("cancel_job").request("POST", f"/cancel_job?job_id={job_id}")
        ((last_id, record),) = events(function, job_id)
        assert record["status"] == "cancelled"
        answer = function.request("GET", f"/job_events?job_id={job_id}", headers={"Last-Event-ID": last_id})
        assert (answer.status, answer.data) == (204, b"")

    def test_a_change_that_was_not_heard_of_is_seen_all_the_same(self, endpoint: Start, submit, store: Redis) -> None:
        job_id = submit()
        stream = events(endpoint("job_events"), job_id)
        assert "attempt" not in next(stream)[1]
        store.client.hset(f"job.{job_id}", "attempt", 7)
        assert next(stream)[1]["attempt"] == 7

    def test_it_goes_on_where_redis_does_not_say_whether_it_is_the_primary(
        self, start: Start, endpoint: Start, submit, store: Redis
    ) -> None:
        store.client.execute_command("ACL", "SETUSER", "reader", "-role")
        try:
            function, job_id = start("job_events").ready(), submit()
            stream = events(function, job_id)
            next(stream)
            time.sleep(2 * CHECK_SECONDS)
            endpoint("cancel_job").request("POST", f"/cancel_job?job_id={job_id}")
            assert next(stream)[1]["status"] == "cancelled"
        finally:
            store.client.execute_command("ACL", "SETUSER", "reader", "+role")
        assert "Traceback" not in function.log()

    def test_a_wish_to_cancel_is_seen(
        self, endpoint: Start, submit, worker: Function, once_followed, tmp_path: Path
    ) -> None:
        job_id = submit(f"wait-for {tmp_path}/go raise")
        stream = events(endpoint("job_events"), job_id)
        assert next(stream)[1]["status"] == "submitted"
        once_followed(job_id, lambda: worker.deliver(job_id))
        assert next(stream)[1]["status"] == "in progress"
        endpoint("cancel_job").request("POST", f"/cancel_job?job_id={job_id}")
        record = next(stream)[1]
        assert record["status"] == "in progress"
        assert "cancel-requested-at" in record
        (tmp_path / "go").touch()
        assert [record["status"] for _, record in stream][-1] == "cancelled"

    def test_who_leaves_is_forgotten_and_no_fault(self, endpoint: Start, submit, store: Redis) -> None:
        job_id, function = submit(), endpoint("job_events")
        stream = events(function, job_id)
        next(stream)
        assert store.client.pubsub_numsub(f"job.{job_id}")[0][1] == 1
        stream.close()
        endpoint("cancel_job").request("POST", f"/cancel_job?job_id={job_id}")
        eventually(lambda: store.client.pubsub_numsub(f"job.{job_id}")[0][1] == 0)
        assert "Traceback" not in function.log()

    def test_two_who_follow_one_job_see_the_same(
        self, endpoint: Start, submit, worker: Function, once_followed
    ) -> None:
        job_id = submit("return")
        one, two = (events(endpoint("job_events"), job_id) for _ in "12")
        assert next(one) == next(two)
        once_followed(job_id, lambda: worker.deliver(job_id))
        assert [*one][-1] == [*two][-1]

    @pytest.mark.parametrize(
        ("query", "status"), [("", 400), ("?job_id=x", 400), (f"?job_id={'0' * 8}-0000-4000-8000-{'0' * 12}", 404)]
    )
    def test_what_cannot_be_followed_is_a_problem(self, endpoint: Start, store: Redis, query: str, status: int) -> None:
        answer = endpoint("job_events").request("GET", f"/job_events{query}")
        assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")

    def test_without_redis_it_is_unavailable(self, start: Start, store: Redis) -> None:
        function = start("job_events", REDIS_URL="redis://127.0.0.1:1/0").ready()
        answer = function.request("GET", f"/job_events?job_id={'0' * 8}-0000-4000-8000-{'0' * 12}")
        assert answer.status == 503
