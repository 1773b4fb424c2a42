"""What is decided before a handler: headers that cannot be read, hosts, bodies that are cut off or encoded."""

import gzip
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest

from knative_jobs.events import cloudevent
from knative_jobs.runtime.errors import InvalidError
from tests.conftest import FRAMEWORK, Function, Redis, Start, eventually, problem

JOB = b'{"start": "1", "end": "2"}'
TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOT_ASCII = [b"order-n\xc2\xb07", b"order-n\xb07", b"\xff"]
REQUIRED = {"specversion": "1.0", "id": "1", "source": "/x", "type": "t"}
KINDS = pytest.mark.parametrize("target", ["worker", "dead_letter"])


def exchange(port: int, request: bytes, half_close: bool = False) -> tuple[int, bytes]:
    """Send this, and return the status and the body of the answer; 0 when there is none."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        said = b""
        while chunk := connection.recv(65536):
            said += chunk
    head, _, body = said.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


def post(path: bytes, *headers: bytes, host: bytes | None = b"x", body: bytes = JOB) -> bytes:
    lines = [b"POST %b HTTP/1.1" % path, *([b"Host: " + host] if host is not None else []), b"Connection: close"]
    return b"\r\n".join([*lines, *headers, b"Content-Length: %d" % len(body), b"", body])


def event(*headers: bytes) -> bytes:
    given = b"\n".join(headers).lower()
    all_ = {b"specversion": b"1.0", b"id": b"1", b"source": b"/x", b"type": b"other"}
    return post(b"/", *(b"ce-%b: %b" % item for item in all_.items() if b"ce-" + item[0] not in given), *headers)


class TestHeaders:
    @pytest.mark.parametrize("value", NOT_ASCII)
    @pytest.mark.parametrize("name", [b"Idempotency-Key", b"Authorization", b"traceparent", b"Prefer", b"Origin"])
    def test_one_that_is_not_ascii_is_an_error_each_time(
        self, endpoint: Start, store: Redis, name: bytes, value: bytes
    ) -> None:
        for _ in range(2):
            status, body = exchange(endpoint("jobs").port, post(b"/jobs", name + b": " + value))
            assert status == 400
            assert name in body
        assert store.client.dbsize() == 0

    def test_an_idempotency_key_with_a_tab_is_an_error(self, endpoint: Start, store: Redis) -> None:
        status, body = exchange(endpoint("jobs").port, post(b"/jobs", b"Idempotency-Key: order\t7"))
        assert (status, b"printable" in body) == (400, True)
        assert store.client.dbsize() == 0

    @pytest.mark.parametrize("other", [b"a", b"b", NOT_ASCII[1]])
    @pytest.mark.parametrize("name", [b"Idempotency-Key", b"Authorization", b"traceparent"])
    def test_one_that_is_there_twice_is_an_error(
        self, endpoint: Start, store: Redis, name: bytes, other: bytes
    ) -> None:
        status, body = exchange(endpoint("jobs").port, post(b"/jobs", name + b": a", name + b": " + other))
        assert status == 400
        assert name in body
        assert store.client.dbsize() == 0

    def test_an_empty_idempotency_key_is_an_error(self, endpoint: Start, store: Redis) -> None:
        status, body = exchange(endpoint("jobs").port, post(b"/jobs", b"Idempotency-Key:"))
        assert (status, b"empty" in body) == (400, True)

    def test_one_that_nobody_reads_may_have_any_characters_and_come_twice(self, endpoint: Start, store: Redis) -> None:
        others = (b"X-Name: Jos\xc3\xa9", b"X-Name: b", b"User-Agent: \xff", b"Cookie: a", b"Cookie: b")
        assert exchange(endpoint("jobs").port, post(b"/jobs", *others))[0] == 202

    def test_what_is_a_list_may_come_in_parts(self, endpoint: Start, store: Redis) -> None:
        parts = (b"Prefer: respond-async", b"Prefer: handling=lenient")
        assert exchange(endpoint("jobs").port, post(b"/jobs", *parts))[0] == 202

    def test_the_servers_of_functions_framework_decide_the_same(self, start: Start, store: Redis) -> None:
        jobs = start("jobs", command=[FRAMEWORK], PYTHONPATH="").ready()
        status, body = exchange(jobs.port, post(b"/jobs", b"Idempotency-Key: " + NOT_ASCII[0]))
        assert (status, b"ASCII" in body) == (400, True)

    @KINDS
    @pytest.mark.parametrize("name", [b"ce-id", b"ce-type", b"ce-source", b"ce-subject"])
    def test_so_is_an_attribute_of_an_event(self, endpoint: Start, store: Redis, target: str, name: bytes) -> None:
        kind = b"ce-type: dev.knative-jobs.job.submitted"
        more = () if name == b"ce-type" else (kind,)
        for value in NOT_ASCII:
            assert exchange(endpoint(target).port, event(*more, name + b": " + value))[0] == 400
        assert exchange(endpoint(target).port, event())[0] == 204

    def test_an_attribute_that_is_there_twice_is_an_error(self, endpoint: Start, store: Redis) -> None:
        assert exchange(endpoint("dead_letter").port, event(b"ce-id: 1", b"ce-id: 1"))[0] == 400


class TestHost:
    @pytest.mark.parametrize("target", ["jobs", "worker", "dead_letter"])
    @pytest.mark.parametrize(
        "hosts", [(), (b"a", b"a"), (b"a", b"b"), (b"",), (b"caf\xe9",), (b"a b",), (b"a, b",), (b"a/b",), (b"u@a",)]
    )
    def test_http_1_1_names_one(self, endpoint: Start, store: Redis, target: str, hosts: tuple[bytes, ...]) -> None:
        headers = [b"Host: " + host for host in hosts]
        assert exchange(endpoint(target).port, post(b"/", *headers, host=None))[0] == 400
        assert store.client.dbsize() == 0

    @pytest.mark.parametrize("host", [b"localhost:5000", b"[::1]:80", b"jobs_1.example", b"a:", b"127.0.0.1"])
    def test_any_name_or_address_will_do(self, endpoint: Start, store: Redis, host: bytes) -> None:
        assert exchange(endpoint("jobs").port, post(b"/jobs", host=host))[0] == 202

    def test_http_1_0_need_not(self, endpoint: Start, store: Redis) -> None:
        request = b"POST /jobs HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(JOB), JOB)
        assert exchange(endpoint("jobs").port, request)[0] == 202


class TestBodies:
    CUT_OFF = (
        b"Content-Length: 100\r\n\r\n" + JOB,
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(JOB), JOB),
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(JOB), JOB),
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b" % (len(JOB) + 9, JOB),
    )
    HEAD = b"POST /jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"

    @pytest.mark.parametrize("rest", CUT_OFF)
    def test_one_that_ends_too_soon_makes_no_job(self, endpoint: Start, store: Redis, rest: bytes) -> None:
        jobs = endpoint("jobs")
        status, body = exchange(jobs.port, self.HEAD + rest, half_close=True)
        assert (status, b"ended too soon" in body) == (400, True)
        assert store.client.dbsize() == 0

    def test_chunks_and_trailers_are_a_whole_body(self, endpoint: Start, store: Redis) -> None:
        first, second = JOB[:9], JOB[9:]
        chunks = b"9\r\n%b\r\n%x\r\n%b\r\n0\r\nX-Sum: 1\r\n\r\n" % (first, len(second), second)
        request = self.HEAD + b"Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
        assert exchange(endpoint("jobs").port, request)[0] == 202

    @pytest.mark.parametrize("target", ["jobs", "worker", "dead_letter"])
    def test_clients_that_hang_up_leave_no_trace_in_the_log(self, start: Start, store: Redis, target: str) -> None:
        function = start(target).ready()
        with ThreadPoolExecutor(20) as threads:
            list(threads.map(lambda i: self.hang_up(function, i), range(300)))
        assert function.request("GET", "/health/readiness").status == 200
        time.sleep(0.5)  # for what is written late
        assert "Traceback" not in function.log()
        assert "ERROR" not in function.log()
        assert store.client.dbsize() == 0

    def hang_up(self, function: Function, number: int) -> None:
        with socket.create_connection(("127.0.0.1", function.port), timeout=30) as connection:
            connection.sendall(self.HEAD + self.CUT_OFF[number % len(self.CUT_OFF)])
            if number % 2:  # with a reset
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    @pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "identity, gzip", "deflate"])
    def test_one_that_is_encoded_is_refused_and_told_why(self, endpoint: Start, store: Redis, encoding: str) -> None:
        headers = {"Content-Encoding": encoding}
        answer = endpoint("jobs").request("POST", "/jobs", body=gzip.compress(JOB), headers=headers)
        assert encoding in problem(answer, 415)
        assert answer.headers["Accept-Encoding"] == "identity"
        assert store.client.dbsize() == 0

    def test_identity_is_no_encoding(self, endpoint: Start, store: Redis) -> None:
        headers = {"Content-Encoding": "Identity"}
        assert endpoint("jobs").request("POST", "/jobs", body=JOB, headers=headers).status == 202

    def test_a_client_that_leaves_a_stream_frees_it_at_once(self, start: Start, store: Redis) -> None:
        job_id = start("jobs").ready().request("POST", "/jobs", body=JOB).json()["id"]
        events = start("job_events").ready()

        def followed() -> int:
            return int(store.client.pubsub_numsub(f"job.{job_id}")[0][1])

        with socket.create_connection(("127.0.0.1", events.port), timeout=30) as connection:
            connection.sendall(b"GET /job_events?job_id=%b HTTP/1.1\r\nHost: x\r\n\r\n" % job_id.encode())
            eventually(lambda: followed() == 1)
        eventually(lambda: followed() == 0, within_s=10)
        assert "Traceback" not in events.log()


class TestCloudEvents:
    """https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md"""

    def headers(self, **more: str) -> dict[str, str]:
        return {f"ce-{name}": value for name, value in (REQUIRED | more).items()}

    @pytest.mark.parametrize(
        "media_type", ["application/cloudevents+json", "Application/CloudEvents+JSON; charset=UTF-8"]
    )
    def test_the_media_type_may_be_in_capitals(self, media_type: str) -> None:
        body = b'{"specversion": "1.0", "id": "1", "source": "/x", "type": "t", "subject": "\xc3\xbc%20", "flag": true}'
        read = cloudevent.read({"Content-Type": media_type}, body)
        assert read.attributes["subject"] == "ü%20", "as it is, for it is no header"
        assert read.attributes["flag"] == "true"

    @pytest.mark.parametrize(
        ("value", "header"),
        [
            ("Euro € 😀", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
            ('a "b" 100%', "a%20%22b%22%20100%25"),
            ("http://x/?a=b&c=~!#$'()*+,;:@[]{}|\\^`<>", "http://x/?a=b&c=~!#$'()*+,;:@[]{}|\\^`<>"),
            ("x\r\ny\x7f", "x%0D%0Ay%7F"),
        ],
    )
    def test_attributes_are_percent_encoded_both_ways(self, value: str, header: str) -> None:
        sent = cloudevent.Event({**REQUIRED, "subject": value}, b"").headers()
        assert sent["ce-subject"] == header
        assert cloudevent.read(sent, b"").attributes["subject"] == value

    @pytest.mark.parametrize(
        ("header", "value"),
        [
            ("%e2%82%ac", "€"),
            ("%41", "A"),
            ("100%", "100%"),
            ("%2541", "%41"),
            ('"a \\"b\\" \\\\"', 'a "b" \\'),
            ('"', '"'),
        ],
    )
    def test_what_others_write_is_read(self, header: str, value: str) -> None:
        assert cloudevent.read(self.headers(subject=header), b"").attributes["subject"] == value

    @pytest.mark.parametrize("header", ["%C0%A0", "%ff", "%ED%A0%80", "ü", "\udcff"])
    def test_what_is_no_utf_8_is_refused(self, header: str) -> None:
        with pytest.raises(InvalidError, match="subject"):
            cloudevent.read(self.headers(subject=header), b"")

    def test_a_function_reads_them_so(self, endpoint: Start, store: Redis) -> None:
        job_id = endpoint("jobs").request("POST", "/jobs", body=JOB).json()["id"]
        encoded = "".join(f"%{ord(character):02x}" for character in job_id)
        assert quote(job_id) != encoded
        assert endpoint("worker", JOB_SECONDS="0").deliver(encoded) == 204
        assert store.record(job_id)["status"] == "complete"
