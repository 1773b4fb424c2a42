"""Traces and logs: what a job keeps of the trace that it was submitted in, the spans, and the ids in the log."""

import hashlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.conftest import PATIENCE_S, ROOT, UNKNOWN_ID, Broker, Function, Receiver, Redis, Start, eventually, free_port

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{CALLER}-01"
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REQUEST, EVENT, ATTEMPT = "POST /jobs", "send dev.knative-jobs.job.submitted", "attempt"
SERVER, PRODUCER, CONSUMER, ERROR = 2, 4, 5, 2  # as OTLP numbers them


class Span(NamedTuple):
    """A span as it came over the wire, with its ids in hex."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    status: int
    attributes: dict[str, str | int]
    service: str


class Collector:
    """An OTLP receiver that keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.raw = b""
        self.server = Receiver(self.take)
        self.settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.server.url,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }

    def take(self, path: str, _: dict[str, str], body: bytes) -> int:
        assert path == "/v1/traces"
        self.raw += body
        self.spans += spans_of(ExportTraceServiceRequest.FromString(body))
        return 200

    def wait_for(self, *names: str) -> list[Span]:
        """Return the spans with these names, once there is one for each."""

        def found() -> list[Span]:
            left = sorted(self.spans, key=lambda span: span.name)
            return left if [span.name for span in left] == sorted(names) else []

        spans = eventually(found)
        assert isinstance(spans, list)
        return sorted(spans, key=lambda span: names.index(span.name))


def spans_of(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for of_resource in request.resource_spans:
        [service] = [a.value.string_value for a in of_resource.resource.attributes if a.key == "service.name"]
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                attributes = {a.key: a.value.string_value or a.value.int_value for a in span.attributes}
                ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
                yield Span(span.name, *ids, span.kind, span.status.code, attributes, service)


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.server.stop()


@pytest.fixture
def worker(start: Start, tmp_path: Path) -> Start:
    def worker(**settings: str) -> Function:
        given = {"JOB_WORK": "sample_work:work", "EFFECTS": str(tmp_path / "effects"), "JOB_BACKOFF_SECONDS": "0"}
        return start("worker", **(given | settings)).ready()

    return worker


def submit(jobs: Function, what: str = "return", traceparent: str = "") -> str:
    headers = {"traceparent": traceparent} if traceparent else {}
    answer = jobs.request("POST", "/jobs", body=json.dumps({"start": what, "end": 2}), headers=headers)
    assert answer.status == 202
    assert answer.json().keys() == {"id", "start", "end", "status"}
    return str(answer.json()["id"])


def ids(traceparent: str) -> tuple[str, str]:
    """Of which trace and which span it is."""
    _, trace, span, _ = traceparent.split("-")
    return trace, span


def next_event(broker: Broker) -> dict[str, str]:
    """The headers of the event that comes next."""
    eventually(lambda: broker.events)
    headers, _ = broker.events.pop(0)
    return headers


class TestContext:
    """Without a collector."""

    def test_it_goes_from_the_request_through_record_and_event_to_the_work(
        self, start: Start, endpoint: Start, worker: Start, broker: Broker, store: Redis
    ) -> None:
        job_id = submit(start("jobs", K_SINK=broker.url).ready(), "traceparent", GIVEN)
        assert store.record(job_id)["traceparent"] == GIVEN
        assert next_event(broker)["ce-traceparent"] == GIVEN
        worker().deliver(job_id)
        job = endpoint("jobs_status").request("GET", f"/?job_id={job_id}").json()
        assert (job["traceparent"], job["result"]) == (GIVEN, GIVEN)

    def test_without_one_there_is_none(self, start: Start, worker: Start, broker: Broker, store: Redis) -> None:
        job_id = submit(start("jobs", K_SINK=broker.url).ready(), "traceparent")
        assert "traceparent" not in store.record(job_id)
        assert "ce-traceparent" not in next_event(broker)
        worker().deliver(job_id)
        assert store.record(job_id)["result"] == '""'

    def test_all_jobs_of_a_batch_have_it(self, endpoint: Start, store: Redis) -> None:
        body, headers = json.dumps([{"start": 1, "end": 2}] * 3), {"traceparent": GIVEN}
        batch = endpoint("jobs").request("POST", "/jobs", body=body, headers=headers).json()
        assert [store.record(job["id"])["traceparent"] for job in batch] == [GIVEN] * 3

    @pytest.mark.parametrize("announces", ["retry_job", "sweeper", "worker"])
    def test_whoever_announces_the_job_the_event_has_it(
        self, start: Start, endpoint: Start, worker: Start, broker: Broker, store: Redis, announces: str
    ) -> None:
        job_id = submit(endpoint("jobs"), traceparent=GIVEN)
        if announces == "retry_job":
            endpoint("cancel_job").request("POST", f"/?job_id={job_id}")
            start("retry_job", K_SINK=broker.url).ready().request("POST", f"/?job_id={job_id}")
        elif announces == "sweeper":
            store.client.zadd("jobs.due", {job_id: 1})
            start("sweeper", K_SINK=broker.url, SWEEP_SECONDS="0").ready().request("POST")
        else:
            other = submit(endpoint("jobs"), traceparent=OTHER)
            worker(K_SINK=broker.url, WORKER_DRAIN_SECONDS="0", JOB_EVENTS="none").deliver(other)
        event = next_event(broker)
        assert (event["ce-subject"], event["ce-traceparent"]) == (job_id, GIVEN)

    @pytest.mark.parametrize(
        "invalid",
        [
            "nonsense",
            GIVEN.upper(),
            f"ff-{TRACE}-{CALLER}-01",
            f"00-{'0' * 32}-{CALLER}-01",
            f"00-{TRACE}-{'0' * 16}-01",
            f"00-{TRACE}-{CALLER}-01-more",
            f"00-{TRACE}-{CALLER}",
            f"{GIVEN},{GIVEN}",
            "0" * 4000,
        ],
    )
    def test_one_that_is_not_valid_counts_as_none(self, endpoint: Start, store: Redis, invalid: str) -> None:
        assert "traceparent" not in store.record(submit(endpoint("jobs"), traceparent=invalid))

    @pytest.mark.parametrize(
        ("later", "understood"), [("cc-{}-01", "00-{}-01"), ("cc-{}-01-more", "00-{}-01"), ("01-{}-02", "00-{}-00")]
    )
    def test_of_a_later_version_what_is_known_is_kept(
        self, endpoint: Start, store: Redis, later: str, understood: str
    ) -> None:
        ids = f"{TRACE}-{CALLER}"
        job_id = submit(endpoint("jobs"), traceparent=later.format(ids))
        assert store.record(job_id)["traceparent"] == understood.format(ids)


class TestSpans:
    @pytest.mark.parametrize("given", [GIVEN, ""])
    def test_request_event_and_attempt_are_one_trace(
        self, start: Start, worker: Start, broker: Broker, collector: Collector, store: Redis, given: str
    ) -> None:
        jobs = start("jobs", K_SINK=broker.url, **collector.settings).ready()
        job_id = submit(jobs, "traceparent", given)
        sent = next_event(broker)
        event_of_broker = {name: value for name, value in sent.items() if name.startswith("ce-")}
        assert worker(**collector.settings).request("POST", headers=event_of_broker, body=b"{}").status == 204

        request, event, attempt = collector.wait_for(REQUEST, EVENT, ATTEMPT)
        assert request.parent == (CALLER if given else "")
        assert event.parent == attempt.parent == request.id
        assert {request.trace, event.trace, attempt.trace} == {TRACE if given else request.trace}
        assert [span.kind for span in (request, event, attempt)] == [SERVER, PRODUCER, CONSUMER]

        record = store.record(job_id)
        assert ids(record["traceparent"]) == (request.trace, request.id)
        assert ids(sent["ce-traceparent"]) == (event.trace, event.id)
        assert ids(json.loads(record["result"])) == (attempt.trace, attempt.id), "the work goes on from its attempt"

        assert request.attributes == {
            "http.request.method": "POST",
            "http.route": "/jobs",
            "url.path": "/jobs",
            "url.scheme": "http",
            "http.response.status_code": 202,
        }
        assert event.attributes["job.id"] == attempt.attributes["job.id"] == job_id
        assert event.attributes["job.kind"] == attempt.attributes["job.kind"] == "default"
        assert event.attributes["messaging.message.id"] == sent["ce-id"]
        assert (attempt.attributes["job.attempt"], attempt.attributes["job.outcome"]) == (1, "complete")

    def test_a_job_that_is_taken_without_its_event_has_its_trace_too(
        self, endpoint: Start, worker: Start, collector: Collector, store: Redis
    ) -> None:
        first = submit(endpoint("jobs"), traceparent=GIVEN)
        second = submit(endpoint("jobs"), traceparent=OTHER)
        worker(**collector.settings).deliver(first)
        spans = collector.wait_for(ATTEMPT, ATTEMPT)
        of = {span.attributes["job.id"]: (span.trace, span.parent) for span in spans}
        assert of == {first: ids(GIVEN), second: ids(OTHER)}

    def test_attempts_after_an_error_and_after_a_retry_belong_to_the_same_trace(
        self, endpoint: Start, worker: Start, collector: Collector, store: Redis
    ) -> None:
        job_id = submit(endpoint("jobs"), "raise oh", GIVEN)
        function = worker(JOB_MAX_ATTEMPTS="2", WORKER_DRAIN_SECONDS="0", **collector.settings)
        function.deliver(job_id)
        function.deliver(job_id)
        assert endpoint("retry_job").request("POST", f"/?job_id={job_id}", headers={"traceparent": OTHER}).status == 202
        function.deliver(job_id)
        spans = collector.wait_for(ATTEMPT, ATTEMPT, ATTEMPT)
        assert {(span.trace, span.parent) for span in spans} == {(TRACE, CALLER)}
        assert sorted(span.attributes["job.attempt"] for span in spans) == [1, 2, 3]
        assert len({span.id for span in spans}) == 3

    @pytest.mark.parametrize(
        ("what", "outcome", "error"),
        [("raise x", "error", "ValueError"), ("fail x", "failed", "Fail"), ("die", "error", "WorkProcessDied")],
    )
    def test_an_attempt_that_went_wrong_is_an_error(
        self, endpoint: Start, worker: Start, collector: Collector, store: Redis, what: str, outcome: str, error: str
    ) -> None:
        worker(WORKER_DRAIN_SECONDS="0", **collector.settings).deliver(submit(endpoint("jobs"), what))
        [span] = collector.wait_for(ATTEMPT)
        assert (span.status, span.attributes["job.outcome"], span.attributes["error.type"]) == (ERROR, outcome, error)

    def test_a_request_that_the_function_could_not_answer_is_an_error_and_a_clients_mistake_is_not(
        self, start: Start, collector: Collector
    ) -> None:
        away = {"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
        status = start("jobs_status", **away, **collector.settings).ready()
        status.request("GET", f"/jobs_status?job_id={UNKNOWN_ID}")
        status.request("GET", "/jobs_status?job_id=1")
        status.request("BREW", "/jobs_status")
        status.request("GET", "/health/readiness")
        spans = collector.wait_for("GET /jobs_status", "GET /jobs_status", "HTTP /jobs_status")
        seen = {span.attributes["http.response.status_code"]: span for span in spans}
        assert {code: span.status == ERROR for code, span in seen.items()} == {503: True, 400: False, 405: False}
        assert seen[405].attributes["http.request.method"] == "_OTHER"

    def test_no_span_holds_what_was_submitted_or_a_token(
        self, start: Start, worker: Start, broker: Broker, collector: Collector
    ) -> None:
        token = "token-of-alice"
        tokens = f"alice:write:{hashlib.sha256(token.encode()).hexdigest()}"
        settings = {"K_SINK": broker.url, "API_TOKENS": tokens, **collector.settings}
        jobs = start("jobs", **settings).ready()
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "kept-to-oneself"}
        body = json.dumps({"start": "raise kept-to-oneself", "end": "kept-to-oneself"})
        assert jobs.request("POST", "/jobs", body=body, headers=headers).status == 202
        assert jobs.request("POST", "/jobs?kept-to-oneself", body=body, headers=headers).status == 400
        headers["Authorization"] = "Bearer kept-to-oneself"
        assert jobs.request("POST", "/jobs", body=body, headers=headers).status == 401
        worker(WORKER_DRAIN_SECONDS="0", **collector.settings).deliver(next_event(broker)["ce-subject"])
        assert collector.wait_for(REQUEST, REQUEST, REQUEST, EVENT, ATTEMPT)[-1].status == ERROR
        assert b"kept-to-oneself" not in collector.raw
        assert token.encode() not in collector.raw
        assert b"password" not in collector.raw

    def test_a_trace_that_the_caller_does_not_record_is_not_recorded_here(
        self, start: Start, collector: Collector, store: Redis
    ) -> None:
        jobs = start("jobs", **collector.settings).ready()
        not_sampled = submit(jobs, traceparent=f"00-{TRACE}-{CALLER}-00")
        submit(jobs, traceparent=OTHER)
        assert [(span.trace, span.parent) for span in collector.wait_for(REQUEST)] == [ids(OTHER)]
        kept = store.record(not_sampled)["traceparent"]
        assert kept.startswith(f"00-{TRACE}-")
        assert kept.endswith("-00")

    @pytest.mark.parametrize(
        ("settings", "name"),
        [
            ({}, "knative-jobs"),
            ({"K_SERVICE": "jobs"}, "jobs"),
            ({"K_SERVICE": "jobs", "OTEL_SERVICE_NAME": "mine"}, "mine"),
        ],
    )
    def test_the_service_has_its_name(
        self, start: Start, collector: Collector, settings: dict[str, str], name: str
    ) -> None:
        submit(start("jobs", **collector.settings, **settings).ready())
        [span] = collector.wait_for(REQUEST)
        assert span.service == name

    def test_traces_may_have_an_address_of_their_own(self, start: Start, collector: Collector) -> None:
        address = collector.settings["OTEL_EXPORTER_OTLP_ENDPOINT"] + "/v1/traces"
        submit(start("jobs", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=address, OTEL_BSP_SCHEDULE_DELAY="50").ready())
        collector.wait_for(REQUEST)

    @pytest.mark.parametrize("server", ["of the image", "functions-framework"])
    def test_what_is_batched_is_sent_at_the_end(self, start: Start, collector: Collector, server: str) -> None:
        alone = Path(sys.executable).with_name("functions-framework")
        settings = collector.settings | {"OTEL_BSP_SCHEDULE_DELAY": "60000"}
        jobs = start("jobs", command=[str(alone)] if server == "functions-framework" else None, **settings).ready()
        submit(jobs)
        assert not collector.spans
        jobs.kill(signal.SIGTERM)
        collector.wait_for(REQUEST)

    def test_an_attempt_that_ends_after_sigterm_is_sent(
        self, endpoint: Start, worker: Start, collector: Collector, tmp_path: Path
    ) -> None:
        function = worker(**collector.settings | {"OTEL_BSP_SCHEDULE_DELAY": "60000"})
        job_id = submit(endpoint("jobs"), "sleep 0.5")
        thread = threading.Thread(target=function.deliver, args=[job_id])
        thread.start()
        eventually((tmp_path / "effects").exists)
        function.kill(signal.SIGTERM)
        thread.join()
        [span] = collector.wait_for(ATTEMPT)
        assert span.attributes["job.outcome"] == "complete"

    def test_so_is_that_of_a_job_sink(
        self, start: Start, endpoint: Start, collector: Collector, tmp_path: Path
    ) -> None:
        job_id = submit(endpoint("jobs"), traceparent=GIVEN)
        event = {"specversion": "1.0", "type": "dev.knative-jobs.job.submitted", "source": "/jobs", "id": "1"}
        (tmp_path / "event").write_text(json.dumps(event | {"subject": job_id}))
        command = ["-m", "knative_jobs.server.jobsink", str(tmp_path / "event")]
        settings = collector.settings | {"OTEL_BSP_SCHEDULE_DELAY": "60000", "JOB_SECONDS": "0"}
        assert start("worker", command=command, **settings).process.wait(PATIENCE_S) == 0
        [span] = collector.wait_for(ATTEMPT)
        assert (span.trace, span.parent) == (TRACE, CALLER)


class TestNoCollector:
    def test_a_collector_that_is_away_or_silent_slows_and_fails_nothing(
        self, start: Start, worker: Start, store: Redis
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            for port in (free_port(), silent.getsockname()[1]):
                settings = {
                    "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
                    "OTEL_EXPORTER_OTLP_TIMEOUT": "1000",  # seconds, longer than this test may take
                    "OTEL_BSP_SCHEDULE_DELAY": "100",
                }
                jobs, function = start("jobs", **settings).ready(), worker(**settings)
                for _ in range(20):
                    job_id = submit(jobs)
                assert function.deliver(job_id) == 204
                assert store.record(job_id)["status"] == "complete"
                jobs.process.terminate()
                jobs.process.wait(PATIENCE_S)  # for the last spans it does not wait for long

    def test_the_log_says_what_could_not_be_sent(self, start: Start) -> None:
        away = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}", "OTEL_EXPORTER_OTLP_TIMEOUT": "0.5"}
        jobs = start("jobs", K_SERVICE="jobs", OTEL_BSP_SCHEDULE_DELAY="50", **away).ready()
        submit(jobs)
        [line] = lines(jobs, "Failed to export")
        assert line["severity"] == "ERROR"

    def test_without_one_opentelemetry_is_not_loaded_by_any_function(self) -> None:
        assert loaded() == []
        assert "opentelemetry" in loaded(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")


def loaded(**settings: str) -> list[str]:
    """Of the packages that only spans need, those that loading every function has loaded."""
    handlers = sorted(path.stem for path in (ROOT / "functions").glob("*.py"))
    program = f"""
import importlib, os, sys
for name in {handlers}:
    importlib.import_module(name)
print(sorted({{name.split('.')[0] for name in sys.modules}} & {{'opentelemetry', 'requests'}}), flush=True)
os._exit(0)
"""
    env = {"PYTHONPATH": str(ROOT / "functions"), **settings}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return re.findall(r"\w+", done.stdout)


def lines(function: Function, saying: str) -> list[dict[str, object]]:
    """The lines of a function's JSON log whose message has these words, once there is one."""
    eventually(lambda: saying in function.log())
    found = [json.loads(line) for line in function.log().splitlines() if saying in line]
    return [line for line in found if saying in str(line["message"])]


class TestLog:
    def test_a_line_of_the_worker_has_the_ids(self, endpoint: Start, worker: Start, store: Redis) -> None:
        function = worker(K_SERVICE="worker")
        job_id = submit(endpoint("jobs"), traceparent=GIVEN)
        function.deliver(job_id)
        [line] = lines(function, "attempt 1: complete")
        assert line["message"] == f"job {job_id} attempt 1: complete"
        assert (line["job_id"], line["attempt"], line["job_kind"]) == (job_id, 1, "default")
        assert (line["trace_id"], line["span_id"]) == (TRACE, CALLER)

    def test_and_with_a_collector_those_of_the_attempts_span(
        self, endpoint: Start, worker: Start, collector: Collector, store: Redis
    ) -> None:
        function = worker(K_SERVICE="worker", **collector.settings)
        function.deliver(submit(endpoint("jobs"), traceparent=GIVEN))
        [line], [span] = lines(function, "attempt 1: complete"), collector.wait_for(ATTEMPT)
        assert (line["trace_id"], line["span_id"]) == (TRACE, span.id)

    def test_what_is_not_known_is_left_out(self, endpoint: Start, worker: Start, store: Redis) -> None:
        function = worker(K_SERVICE="worker")
        function.deliver(submit(endpoint("jobs")))
        [line] = lines(function, "attempt 1: complete")
        assert line.keys() == {"time", "severity", "logger", "message", "job_id", "attempt", "job_kind"}

    def test_on_a_terminal_it_is_text_and_has_none(self, endpoint: Start, worker: Start, store: Redis) -> None:
        function = worker()
        job_id = submit(endpoint("jobs"), traceparent=GIVEN)
        function.deliver(job_id)
        eventually(lambda: f"INFO job {job_id} attempt 1: complete\n" in function.log())
        assert TRACE not in function.log()

    def test_the_sweeper_says_whose_lease_ran_out(
        self, start: Start, endpoint: Start, worker: Start, store: Redis, tmp_path: Path
    ) -> None:
        job_id = submit(endpoint("jobs"), "sleep 30", GIVEN)
        held = worker(JOB_LEASE_SECONDS="0.3")
        thread = threading.Thread(target=ignoring_its_end(lambda: held.deliver(job_id)))
        thread.start()
        eventually((tmp_path / "effects").exists)
        held.kill()
        thread.join()
        sweeper = start("sweeper", K_SERVICE="sweeper", SWEEP_SECONDS="0").ready()
        eventually(lambda: sweeper.request("POST").status == 204 and "lease ran out" in sweeper.log())
        [line] = lines(sweeper, "lease ran out")
        assert (line["job_id"], line["job_kind"], line["trace_id"]) == (job_id, "default", TRACE)

    def test_events_and_dead_letters_say_whose_they_are(self, start: Start, endpoint: Start, store: Redis) -> None:
        nowhere = f"http://127.0.0.1:{free_port()}/"
        jobs = start("jobs", K_SINK=nowhere, K_SERVICE="jobs").ready()
        job_id = submit(jobs, traceparent=GIVEN)
        [line] = lines(jobs, "was not emitted")
        assert (line["job_id"], line["attempt"], line["trace_id"]) == (job_id, 1, TRACE)
        dead_letter = start("dead_letter", K_SERVICE="dead-letter").ready()
        dead_letter.deliver(job_id, traceparent=GIVEN)
        [line] = lines(dead_letter, "was not delivered")
        assert (line["job_id"], line["trace_id"]) == (job_id, TRACE)

    def test_a_submission_that_could_not_be_saved_says_in_which_trace(self, start: Start) -> None:
        jobs = start("jobs", K_SERVICE="jobs", REDIS_URL=f"redis://127.0.0.1:{free_port()}/0").ready()
        body = b'{"start": 1, "end": 2}'
        assert jobs.request("POST", "/jobs", body=body, headers={"traceparent": GIVEN}).status == 503
        [line] = lines(jobs, "does not answer")
        assert (line["trace_id"], line["span_id"]) == (TRACE, CALLER)


def ignoring_its_end(call: Callable[[], object]) -> Callable[[], None]:
    """The call, whose server may not live to answer it."""

    def ignoring() -> None:
        with pytest.raises(Exception, match=r"Connection|Protocol|aborted|reset"):
            call()

    return ignoring
