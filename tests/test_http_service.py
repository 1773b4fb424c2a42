"""Work that an HTTP service does: what the worker posts to it, and what becomes of the job by what it answers."""

import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from email.utils import formatdate
from typing import Any, NamedTuple

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import PATIENCE_S, ROOT, Function, Redis, Start, answers, eventually, free_port

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Request(NamedTuple):
    """What the service got."""

    line: str
    headers: dict[str, str]
    body: str


class Service:
    """A service whose answers are bytes, so that they may be anything."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.answer: Callable[[socket.socket], None] = lambda end: end.sendall(response(200, b"null"))
        self.closed = threading.Event()
        """Set when a client has closed a connection whose answer was not finished."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._context = context
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def answers(self, *data: bytes) -> None:
        self.answer = lambda end: end.sendall(b"".join(data))

    def hangs(self, *data: bytes) -> None:
        """Answer these, and then nothing until the client goes away."""

        def answer(end: socket.socket) -> None:
            end.sendall(b"".join(data))
            end.settimeout(PATIENCE_S)
            if not end.recv(1):
                self.closed.set()

        self.answer = answer

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._exchange, args=[end], daemon=True).start()

    def _exchange(self, end: socket.socket) -> None:
        try:
            if self._context:
                end = self._context.wrap_socket(end, server_side=True)
            with closing(end), end.makefile("rb") as file:
                line = file.readline().decode().strip()
                headers = {}
                while entry := file.readline().decode().strip():
                    name, _, value = entry.partition(": ")
                    headers[name.lower()] = value
                self.requests.append(Request(line, headers, file.read(int(headers["content-length"])).decode()))
                self.answer(end)
        except OSError:
            self.closed.set()


def response(status: int, body: bytes, *headers: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status} Reason", f"Content-Length: {len(body)}", *headers, "", ""])
    return head.encode() + body


def lines(*said: object) -> bytes:
    body = b"".join(json.dumps(each).encode() + b"\n" for each in said)
    return response(200, body, "Content-Type: application/x-ndjson")


@pytest.fixture
def service() -> Iterator[Service]:
    with closing(Service()) as service:
        yield service


@pytest.fixture
def worker(start: Start, service: Service) -> Callable[..., Function]:
    def worker(**given: str) -> Function:
        work = f"http://127.0.0.1:{service.port}/work?x=1"
        usual = {"JOB_WORK": work, "JOB_BACKOFF_SECONDS": "0", "JOB_MAX_ATTEMPTS": "1"}
        return start("worker", **usual | given).ready()

    return worker


@pytest.fixture
def submit(start: Start, store: Redis) -> Callable[..., str]:
    jobs = start("jobs", JOB_KINDS="default add").ready()

    def submit(headers: dict[str, str] | None = None, **job: Any) -> str:
        body = json.dumps(job or {"start": 1, "end": "zwei"})
        return str(jobs.request("POST", "/jobs", body=body, headers=headers or {}).json()["id"])

    return submit


@pytest.fixture
def run(submit: Callable[..., str], store: Redis) -> Callable[..., dict[str, str]]:
    """Have a worker make so many attempts at a job, and return its record."""

    def run(worker: Function, attempts: int = 1) -> dict[str, str]:
        job_id = submit()
        eventually(lambda: worker.deliver(job_id) == 204 and store.record(job_id).get("attempt") == str(attempts))
        return store.record(job_id)

    return run


Worker = Callable[..., Function]
Run = Callable[..., dict[str, str]]


class TestRequest:
    def test_the_job_is_posted_as_it_was_submitted(
        self, worker: Worker, submit, start: Start, service: Service
    ) -> None:
        jobs = start("jobs", JOB_KINDS="add").ready()
        body = b'{"kind": "add", "input": {"b": 1.10, "a": ["\\u00e9", 1e3]}}'
        job_id = jobs.request("POST", "/jobs", body=body, headers={"traceparent": TRACE}).json()["id"]
        assert worker(JOB_KIND="add").deliver(job_id) == 204
        [request] = service.requests
        assert request.line == "POST /work?x=1 HTTP/1.1"
        given = '{"b": 1.10, "a": ["\\u00e9", 1e3]}'
        assert request.body == f'{{"id":"{job_id}","kind":"add","attempt":1,"time-left":300,"input":{given}}}'
        assert request.headers["content-type"] == "application/json"
        assert request.headers["idempotency-key"] == f"{job_id}.1"
        assert request.headers["traceparent"].startswith(TRACE[:35])
        assert request.headers["host"] == f"127.0.0.1:{service.port}"

    def test_a_job_without_input_has_start_and_end_alone(self, worker: Worker, run: Run, service: Service) -> None:
        job = run(worker())
        expected = f'{{"id":"{job["id"]}","kind":"default","attempt":1,"start":1,"end":"zwei","time-left":300}}'
        assert service.requests[0].body == expected

    def test_a_user_in_the_address_is_sent_and_in_no_log_or_record(
        self, worker: Worker, run: Run, service: Service
    ) -> None:
        service.answers(response(500, b"oh"))
        function = worker(JOB_WORK=f"http://walt:s3cret@127.0.0.1:{service.port}/")
        job = run(function)
        assert service.requests[0].headers["authorization"] == "Basic d2FsdDpzM2NyZXQ="
        assert "s3cret" not in function.log() + json.dumps(job)

    def test_over_tls_the_service_must_be_the_one_that_it_says(self, worker: Worker, run: Run, tmp_path) -> None:
        authority, certificate = trustme.CA(), tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        with closing(Service(context)) as secure:
            secure.answers(response(200, b"7"))
            address = f"https://127.0.0.1:{secure.port}/"
            assert run(worker(JOB_WORK=address, SSL_CERT_FILE=str(certificate)))["result"] == "7"
            assert "CERTIFICATE_VERIFY_FAILED" in run(worker(JOB_WORK=address))["error"]

    @pytest.mark.parametrize("address", ["http://", "https://:80/", "http://host:port/", "http://h ost/", "http://ü/"])
    def test_an_address_that_cannot_be_ends_the_start(self, start: Start, address: str) -> None:
        function = start("worker", JOB_WORK=address)
        assert function.process.wait(PATIENCE_S)
        assert "JOB_WORK is an address" in function.log()


class TestResponse:
    @pytest.mark.parametrize(
        ("answer", "result"),
        [
            (response(200, b'{"a": [1, 2.50]}'), '{"a": [1, 2.5]}'),
            (response(201, b' "x" ', "Content-Type: text/plain"), '"x"'),
            (response(204, b""), "null"),
            (response(200, b""), "null"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n1\r\n]\r\n0\r\n\r\n", "[1]"),
            (b"HTTP/1.0 200 OK\r\n\r\n42", "42"),
        ],
    )
    def test_a_body_with_2xx_is_the_result(
        self, worker: Worker, run: Run, service: Service, answer: bytes, result: str
    ) -> None:
        service.answers(answer)
        job = run(worker())
        assert (job["status"], job["result"]) == ("complete", result)

    @pytest.mark.parametrize(
        ("answer", "says"),
        [
            (response(200, b"no JSON"), "not JSON"),
            (response(200, b"[NaN]"), "not JSON"),
            (response(200, b"[" * 5000), "not JSON"),
            (response(200, b"\xff"), "not JSON"),
            (response(200, b'"%b"' % (b"x" * 300_000)), "over 262144 bytes"),
            (response(400, b"no such picture"), "400 Reason: no such picture"),
            (response(404, b""), "404 Reason"),
        ],
    )
    def test_what_will_not_be_better_next_time_fails_the_job(
        self, worker: Worker, run: Run, service: Service, answer: bytes, says: str
    ) -> None:
        service.answers(answer)
        job = run(worker(JOB_MAX_ATTEMPTS="3"))
        assert (job["status"], job["attempt"]) == ("failed", "1")
        assert says in json.loads(job["error"])["message"]

    @pytest.mark.parametrize(
        ("answer", "says"),
        [
            (response(500, b"x" * 10_000), "500 Reason: xxx"),
            (response(503, b""), "503"),
            (response(429, b"", "Retry-After: soon"), "429"),
            (response(302, b"", "Location: http://127.0.0.1:1/"), "302"),
            (b"", "closed connection without response"),
            (b"SSH-2.0\r\n", "SSH-2.0"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1", "IncompleteRead"),
        ],
    )
    def test_what_may_be_better_next_time_is_an_attempt_that_went_wrong(
        self, worker: Worker, run: Run, service: Service, answer: bytes, says: str
    ) -> None:
        service.answers(answer)
        job = run(worker(JOB_MAX_ATTEMPTS="2"), attempts=2)
        assert job["status"] == "failed"
        assert says in json.loads(job["error"])["message"]
        assert len(job["error"]) < 1000

    def test_nobody_there_is_an_attempt_that_went_wrong(self, worker: Worker, run: Run) -> None:
        job = run(worker(JOB_WORK=f"http://127.0.0.1:{free_port()}/"))
        assert json.loads(job["error"])["type"] == "ConnectionRefusedError"

    @pytest.mark.parametrize("status", [429, 503])
    @pytest.mark.parametrize("how", [lambda: "30", lambda: formatdate(time.time() + 30, usegmt=True)])
    def test_retry_after_says_when_the_next_attempt_is(
        self, worker: Worker, run: Run, service: Service, store: Redis, status: int, how: Callable[[], str]
    ) -> None:
        service.answers(response(status, b"busy", f"Retry-After: {how()}"))
        job = run(worker(JOB_MAX_ATTEMPTS="2"))
        assert job["status"] == "submitted"
        assert 20 < store.client.zscore("jobs.due", job["id"]) - float(job["started-at"]) < 31


class TestLines:
    def test_progress_is_shown_and_the_last_line_is_the_result(
        self, worker: Worker, submit, store: Redis, service: Service
    ) -> None:
        progress = json.dumps({"progress": 0.25, "message": "a quarter"}).encode() + b"\n"
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson; charset=utf-8\r\n\r\n"
        go_on = threading.Event()

        def answer(end: socket.socket) -> None:
            end.sendall(head + progress[:7])
            end.sendall(progress[7:])
            go_on.wait(PATIENCE_S)
            end.sendall(b'\n{"result": {"sum": 3}}\n')

        service.answer = answer
        job_id = submit()
        thread = threading.Thread(target=worker().deliver, args=[job_id])
        thread.start()
        eventually(lambda: store.record(job_id).get("progress-message") == "a quarter")
        assert store.record(job_id)["progress"] == "0.25"
        go_on.set()
        thread.join()
        assert store.record(job_id)["result"] == '{"sum": 3}'

    @pytest.mark.parametrize(
        ("said", "attempts", "says"),
        [
            ([{"error": {"type": "Oh", "message": "no"}}], 2, "no"),
            ([{"failed": {"type": "Oh", "message": "no"}}], 1, "no"),
            ([{"progress": 0.5}], 2, "without a result"),
            ([{"progress": "half"}], 2, "half"),
            ([[1]], 2, "[1]"),
        ],
    )
    def test_a_stream_may_say_how_it_went_wrong(
        self, worker: Worker, run: Run, service: Service, said: list[object], attempts: int, says: str
    ) -> None:
        service.answers(lines(*said))
        job = run(worker(JOB_MAX_ATTEMPTS="2"), attempts)
        assert job["status"] == "failed"
        assert says in json.loads(job["error"])["message"]

    def test_an_error_may_say_when_to_try_again(self, worker: Worker, run: Run, service: Service, store: Redis) -> None:
        service.answers(lines({"error": {"type": "Busy", "message": ""}, "retry-after": 30}))
        job = run(worker(JOB_MAX_ATTEMPTS="2"))
        assert store.client.zscore("jobs.due", job["id"]) - float(job["started-at"]) > 29


class TestWhatEndsAnAttempt:
    HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"

    @pytest.mark.parametrize("so_far", [b"", HEAD, HEAD + b'{"progress": 0.1}\n{"resu'])
    def test_cancelling_closes_the_request(
        self, worker: Worker, submit, start: Start, store: Redis, service: Service, so_far: bytes
    ) -> None:
        service.hangs(so_far)
        job_id = submit()
        thread = threading.Thread(target=worker().deliver, args=[job_id])
        thread.start()
        eventually(lambda: service.requests)
        assert start("cancel_job").ready().request("POST", f"/cancel_job?job_id={job_id}").status == 202
        thread.join()
        assert store.record(job_id)["status"] == "cancelled"
        assert service.closed.wait(PATIENCE_S)

    def test_the_time_limit_closes_the_request(self, worker: Worker, run: Run, service: Service) -> None:
        service.hangs()
        job = run(worker(JOB_TIMEOUT_SECONDS="1"))
        assert json.loads(job["error"])["type"] == "TimeoutError"
        assert service.closed.wait(PATIENCE_S)

    def test_a_worker_that_is_stopped_hands_the_job_back_after_the_grace(
        self, worker: Worker, submit, store: Redis, service: Service
    ) -> None:
        service.hangs()
        job_id = submit()
        function = worker(WORKER_GRACE_SECONDS="0.5")
        thread = threading.Thread(target=function.deliver, args=[job_id])
        thread.start()
        eventually(lambda: service.requests)
        function.process.terminate()
        thread.join()
        assert (store.record(job_id)["status"], store.record(job_id)["releases"]) == ("submitted", "1")
        assert service.closed.wait(PATIENCE_S)

    def test_the_lease_is_renewed_while_the_service_works(
        self, worker: Worker, submit, start: Start, store: Redis, service: Service
    ) -> None:
        service.answer = lambda end: (time.sleep(3), end.sendall(response(200, b"1")))  # type: ignore[assignment, return-value]
        job_id = submit()
        sweeper = start("sweeper", SWEEP_SECONDS="0", JOB_LEASE_SECONDS="1").ready()
        thread = threading.Thread(target=worker(JOB_LEASE_SECONDS="1").deliver, args=[job_id])
        thread.start()
        while thread.is_alive():
            assert sweeper.request("POST").status == 204
            thread.join(0.3)
        assert (store.record(job_id)["status"], store.record(job_id)["attempt"]) == ("complete", "1")


LINE = st.dictionaries(st.sampled_from(["progress", "result", "error", "message"]), st.integers() | st.text())
ANYTHING = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda status, body: response(status, body), st.integers(100, 599), st.binary(max_size=50)),
    st.builds(lambda body: response(200, body, "Content-Type: application/x-ndjson"), st.binary(max_size=50)),
    st.builds(lambda said: lines(*said), st.lists(LINE)),
)


@pytest.fixture
def one_worker(worker: Worker) -> Function:
    return worker()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer=ANYTHING)
def test_whatever_a_service_answers_the_job_ends_and_the_next_gets_its_own_result(
    one_worker: Function, run: Run, service: Service, answer: bytes
) -> None:
    service.answers(answer)
    assert run(one_worker)["status"] in ("complete", "failed")
    service.answer = lambda end: end.sendall(response(200, service.requests[-1].body.encode()))
    job = run(one_worker)
    assert json.loads(job["result"])["id"] == job["id"]


def test_a_service_in_another_language(start: Start, submit: Callable[..., str], store: Redis) -> None:
    node = shutil.which("node")
    assert node, "Node is missing: apt-get install nodejs"
    port = free_port()
    with subprocess.Popen([node, ROOT / "examples/in-node/kinds/sum/service.mjs", str(port)]) as process:
        try:
            eventually(lambda: answers(port))
            worker = start("worker", JOB_WORK=f"http://127.0.0.1:{port}/", JOB_KIND="add").ready()
            added, refused = submit(kind="add", input={"numbers": [1, 2, 3.5]}), submit(kind="add", input=7)
            assert [worker.deliver(job_id) for job_id in (added, refused)] == [204, 204]
        finally:
            process.kill()
    job = store.record(added)
    assert json.loads(job["result"]) == {"sum": 6.5, "key": f"{added}.1"}
    assert (job["progress"], store.record(refused)["status"]) == ("1", "failed")
