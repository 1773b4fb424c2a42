"""The events that say how jobs ended: each reaches the Broker at least once, whatever fails."""

import json
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from knative_jobs.events import emit
from knative_jobs.runtime.settings import Settings
from local import manifests, supervisor
from tests.conftest import (
    PATIENCE_S,
    ROOT,
    Function,
    Receiver,
    Redis,
    Start,
    answers,
    deliver_soon,
    eventually,
    free_port,
)
from tests.e2e.conftest import Api, one_machine

NOBODY = "http://127.0.0.1:9/"


class Broker:
    """Keeps the events of jobs that have ended, and answers what the test says."""

    def __init__(self, port: int = 0) -> None:
        self.events: list[tuple[dict[str, str], dict[str, object]]] = []
        self.answers: list[int] = []
        self.answers_after_s: float = 0
        self.hangs_up = False
        self.server = Receiver(self.take, port)
        self.url = f"{self.server.url}/default/default"

    def take(self, _: str, headers: dict[str, str], body: bytes) -> int | None:
        if headers.get("ce-type", "").endswith(".submitted"):
            return 202
        self.events.append((headers, json.loads(body)))
        if self.hangs_up:
            return None
        time.sleep(self.answers_after_s)
        return self.answers.pop(0) if self.answers else 202

    @property
    def ended(self) -> list[tuple[str, str]]:
        """What was announced, as (subject, the last word of the type)."""
        return [(headers["ce-subject"], headers["ce-type"].rpartition(".")[2]) for headers, _ in self.events]


@pytest.fixture
def broker() -> Iterator[Broker]:
    broker = Broker()
    yield broker
    broker.server.stop()


@pytest.fixture
def worker(start: Start, tmp_path: Path) -> Start:
    def worker(k_sink: str, **settings: str) -> Function:
        given = {"JOB_WORK": "sample_work:work", "EFFECTS": str(tmp_path / "effects"), **settings}
        return start("worker", K_SINK=k_sink, **given).ready()

    return worker


@pytest.fixture
def sweeper(start: Start) -> Start:
    def sweeper(k_sink: str, **settings: str) -> Function:
        return start("sweeper", K_SINK=k_sink, **{"SWEEP_SECONDS": "0", **settings}).ready()

    return sweeper


def visibility_timeout_passes(store: Redis) -> None:
    for job_id in store.client.zrange("jobs.outbox", 0, -1):
        store.client.zadd("jobs.outbox", {job_id: 0}, xx=True)


def outbox_is_empty(store: Redis) -> bool:
    return store.client.zcard("jobs.outbox") == 0


class TestEvents:
    def test_a_completed_job_is_announced_with_its_record(
        self, worker: Start, submit, status, store: Redis, broker: Broker
    ) -> None:
        job_id = submit("return")
        assert worker(broker.url).deliver(job_id) == 204
        eventually(lambda: broker.events)
        [(headers, data)] = broker.events
        assert {name: headers[name] for name in headers if name.startswith("ce-") and name != "ce-time"} == {
            "ce-specversion": "1.0",
            "ce-type": "dev.knative-jobs.job.completed",
            "ce-source": "/jobs",
            "ce-subject": job_id,
            "ce-jobkind": "default",
            "ce-id": f"{job_id}.complete.{store.record(job_id)['finished-at']}",
        }
        assert headers["content-type"] == "application/json"
        assert data == status(job_id)
        assert data["result"] == {"start": "return", "end": 2}

    def test_a_failed_job_is_announced_after_its_last_attempt(
        self, worker: Start, submit, status, broker: Broker
    ) -> None:
        function = worker(broker.url, JOB_MAX_ATTEMPTS="2", JOB_BACKOFF_SECONDS="0")
        job_id = submit("raise no-luck")
        eventually(lambda: function.deliver(job_id) == 204 and broker.events)
        assert broker.ended == [(job_id, "failed")]
        assert broker.events[0][1] == status(job_id)
        assert status(job_id)["attempt"] == 2

    def test_a_job_that_is_cancelled_while_it_waits_is_announced(self, start: Start, submit, broker: Broker) -> None:
        job_id = submit("return")
        cancel_job = start("cancel_job", K_SINK=broker.url).ready()
        for _ in range(2):
            assert cancel_job.request("POST", f"/cancel_job?job_id={job_id}").status == 200
        eventually(lambda: broker.events)
        cancel_job.kill(signal.SIGTERM)  # what is open ends first
        assert broker.ended == [(job_id, "cancelled")]

    def test_a_job_that_is_cancelled_while_it_runs_is_announced(
        self, worker: Start, submit, endpoint: Start, status, broker: Broker
    ) -> None:
        job_id = submit("report 30")
        thread = deliver_soon(worker(broker.url), job_id)
        eventually(lambda: status(job_id)["status"] == "in progress")
        assert endpoint("cancel_job").request("POST", f"/cancel_job?job_id={job_id}").status == 202
        thread.join()
        eventually(lambda: broker.ended == [(job_id, "cancelled")])

    def test_a_job_that_fails_with_its_lease_is_announced_by_the_sweeper(
        self, worker: Start, sweeper: Start, submit, status, broker: Broker
    ) -> None:
        job_id = submit("sleep 60")
        function = worker(broker.url, JOB_LEASE_SECONDS="0.5")
        thread = deliver_soon(function, job_id)
        eventually(lambda: status(job_id)["status"] == "in progress")
        function.kill()
        thread.join()
        sweep = sweeper(broker.url, JOB_MAX_ATTEMPTS="1")
        eventually(lambda: sweep.request("POST").status == 204 and broker.events)
        assert broker.ended == [(job_id, "failed")]
        assert broker.events[0][1]["error"]["type"] == "LeaseExpired"

    def test_each_of_many_ends_is_announced_once_when_all_goes_well(
        self, worker: Start, sweeper: Start, submit, store: Redis, broker: Broker
    ) -> None:
        """By two workers and a sweeper at once."""
        jobs = [submit("return") for _ in range(100)]
        workers, sweep = [worker(broker.url), worker(broker.url)], sweeper(broker.url)
        with ThreadPoolExecutor() as threads:
            done = [threads.submit(workers[i].deliver, jobs[i]) for i in (0, 1)]
            while not all(delivery.done() for delivery in done):
                assert sweep.request("POST").status == 204
        eventually(lambda: outbox_is_empty(store))
        visibility_timeout_passes(store)
        assert sweep.request("POST").status == 204
        for function in (*workers, sweep):
            function.kill(signal.SIGTERM)  # what is open ends first
        assert sorted(broker.ended) == sorted((job_id, "completed") for job_id in jobs)

    def test_a_job_that_ends_again_is_announced_again(
        self, worker: Start, start: Start, submit, endpoint: Start, broker: Broker
    ) -> None:
        job_id = submit("return")
        start("cancel_job", K_SINK=broker.url).ready().request("POST", f"/cancel_job?job_id={job_id}")
        eventually(lambda: broker.ended == [(job_id, "cancelled")])
        assert endpoint("retry_job").request("POST", f"/retry_job?job_id={job_id}").status == 202
        worker(broker.url).deliver(job_id)
        eventually(lambda: broker.ended == [(job_id, "cancelled"), (job_id, "completed")])
        assert len({headers["ce-id"] for headers, _ in broker.events}) == 2


class TestAtLeastOnce:
    def test_what_ends_while_the_broker_is_down_is_announced_once_it_is_up(
        self, worker: Start, sweeper: Start, submit, status, store: Redis
    ) -> None:
        broker = Broker()
        broker.server.stop()
        job_id = submit("return")
        function = worker(broker.url)
        assert function.deliver(job_id) == 204
        eventually(lambda: "was not emitted, it will be again" in function.log())
        assert status(job_id)["status"] == "complete"
        broker = Broker(port=broker.server.server_port)
        sweep = sweeper(broker.url)
        assert sweep.request("POST").status == 204
        assert not broker.events, "until the visibility timeout it is the worker's to announce"
        visibility_timeout_passes(store)
        sweep.request("POST")
        eventually(lambda: outbox_is_empty(store))
        assert broker.ended == [(job_id, "completed")]
        broker.server.stop()

    def test_the_end_of_a_worker_before_its_event_is_out_loses_nothing(
        self, worker: Start, sweeper: Start, submit, status, store: Redis, broker: Broker
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and says nothing
            function = worker(f"http://127.0.0.1:{silent.getsockname()[1]}/")
            job_id = submit("return")
            assert function.deliver(job_id) == 204
            function.kill()
        assert status(job_id)["status"] == "complete"
        visibility_timeout_passes(store)
        sweep = sweeper(broker.url)
        eventually(lambda: sweep.request("POST").status == 204 and outbox_is_empty(store))
        assert broker.ended == [(job_id, "completed")]

    @pytest.mark.parametrize(
        ("answer", "handed_over"),
        [(200, True), (400, True), (500, True), (302, False), (401, False), (404, False), (429, False), (503, False)],
    )
    def test_an_answer_says_whether_the_broker_has_the_event(
        self, sweeper: Start, submit, endpoint: Start, store: Redis, broker: Broker, answer: int, handed_over: bool
    ) -> None:
        broker.answers = [answer]
        submit("return")
        self.cancel_all(endpoint, store)
        sweep = sweeper(broker.url)
        sweep.request("POST")
        eventually(lambda: broker.events)
        if handed_over:
            eventually(lambda: outbox_is_empty(store))
            return
        eventually(lambda: str(answer) in sweep.log())
        visibility_timeout_passes(store)
        sweep.request("POST")
        eventually(lambda: outbox_is_empty(store))
        first, second = broker.events
        assert first[0]["ce-id"] == second[0]["ce-id"], "a repetition can be told"

    def test_a_broker_that_takes_long_to_answer_has_the_event_and_one_that_hangs_up_has_not(
        self, monkeypatch: pytest.MonkeyPatch, broker: Broker
    ) -> None:
        monkeypatch.setattr(emit, "HANDED_OVER_SECONDS", 1)
        monkeypatch.setattr(emit, "settings", lambda: Settings(k_sink=broker.url))
        broker.answers_after_s = 1000
        assert emit.emit_ended("1", "default", "complete", "2", b"{}").result()
        monkeypatch.setattr(emit, "HANDED_OVER_SECONDS", PATIENCE_S)
        broker.hangs_up = True
        assert not emit.emit_ended("1", "default", "complete", "2", b"{}").result()
        assert len(broker.events) == 2

    def test_what_was_retried_meanwhile_is_not_announced_as_ended(
        self, sweeper: Start, submit, endpoint: Start, store: Redis, broker: Broker
    ) -> None:
        job_id = submit("return")
        self.cancel_all(endpoint, store)
        assert endpoint("retry_job").request("POST", f"/retry_job?job_id={job_id}").status == 202
        sweep = sweeper(broker.url)
        sweep.request("POST")
        eventually(lambda: outbox_is_empty(store))
        sweep.kill(signal.SIGTERM)  # what is open ends first
        assert not broker.events

    def test_the_sweeper_goes_on_while_an_end_is_to_be_announced(
        self, sweeper: Start, submit, endpoint: Start, store: Redis, broker: Broker
    ) -> None:
        job_id = submit("return")
        self.cancel_all(endpoint, store)
        sweep = sweeper(broker.url, SWEEP_SECONDS="60")
        store.client.zadd("jobs.outbox", {job_id: time.time() + 1})
        assert sweep.request("POST").status == 204
        eventually(lambda: broker.ended == [(job_id, "cancelled")])

    def test_on_sigterm_an_open_emission_is_waited_for(
        self, worker: Start, submit, store: Redis, broker: Broker
    ) -> None:
        broker.answers_after_s = 1
        function = worker(broker.url)
        job_id = submit("return")
        assert function.deliver(job_id) == 204
        eventually(lambda: broker.events)
        function.process.send_signal(signal.SIGTERM)
        assert function.process.wait(PATIENCE_S) == 0
        assert broker.ended == [(job_id, "completed")]
        assert outbox_is_empty(store)

    def test_a_jobsink_announces_its_job_before_it_ends(
        self, start: Start, submit, tmp_path: Path, store: Redis, broker: Broker
    ) -> None:
        broker.answers_after_s = 0.3
        job_id = submit("return")
        event = {"specversion": "1.0", "type": "dev.knative-jobs.job.submitted", "source": "/jobs", "id": "1"}
        (tmp_path / "event").write_text(json.dumps(event | {"subject": job_id, "data": {}}))
        work = {"JOB_WORK": "sample_work:work", "EFFECTS": str(tmp_path / "effects"), "K_SINK": broker.url}
        command = ["-m", "knative_jobs.server.jobsink", str(tmp_path / "event")]
        assert start("worker", command=command, **work).process.wait(PATIENCE_S) == 0
        assert broker.ended == [(job_id, "completed")]
        assert outbox_is_empty(store)

    def cancel_all(self, endpoint: Start, store: Redis) -> None:
        """End what waits, where nobody announces it: the endpoint has no Broker, so the outbox is filled here."""
        for job_id in store.client.zrange("jobs.submitted", 0, -1):
            assert endpoint("cancel_job").request("POST", f"/cancel_job?job_id={job_id}").status == 200
            store.client.zadd("jobs.outbox", {job_id: 0})


class TestOffThePathOfRequests:
    def test_work_does_not_wait_for_a_slow_broker(self, worker: Start, submit, broker: Broker) -> None:
        broker.answers_after_s = 1000
        jobs = [submit("return") for _ in range(20)]
        assert worker(broker.url).deliver(jobs[0]) == 204
        eventually(lambda: len(broker.events) == 20)

    def test_nor_does_an_answer_to_people(self, start: Start, submit, broker: Broker) -> None:
        broker.answers_after_s = 1000
        with socket.create_server(("127.0.0.1", 0)) as silent:
            for sink in (broker.url, NOBODY, f"http://127.0.0.1:{silent.getsockname()[1]}/"):
                cancel_job = start("cancel_job", K_SINK=sink).ready()
                for _ in range(40):
                    answer = cancel_job.request("POST", f"/cancel_job?job_id={submit('return')}")
                    assert (answer.status, answer.json()["status"]) == (200, "cancelled")


class TestJobEvents:
    def cancel(self, start: Start, submit: Callable[[str], str], **settings: str) -> str:
        job_id = submit("return")
        assert start("cancel_job", **settings).ready().request("POST", f"/?job_id={job_id}").status == 200
        return job_id

    @pytest.mark.parametrize(("job_events", "announced"), [("cancelled,failed", 1), ("completed", 0), ("none", 0)])
    def test_only_what_it_names_is_announced(
        self, start: Start, submit, store: Redis, broker: Broker, job_events: str, announced: int
    ) -> None:
        self.cancel(start, submit, K_SINK=broker.url, JOB_EVENTS=job_events)
        if announced:
            eventually(lambda: broker.events)
        eventually(lambda: outbox_is_empty(store))
        assert len(broker.events) == announced

    def test_without_a_broker_nothing_is_kept_for_one(self, start: Start, submit, store: Redis) -> None:
        self.cancel(start, submit)
        assert outbox_is_empty(store)

    @pytest.mark.parametrize("bad", ["complete", "completed; failed", "none failed", ","])
    def test_a_word_that_is_none_of_them_stops_the_start(self, start: Start, bad: str) -> None:
        function = start("cancel_job", JOB_EVENTS=bad)
        eventually(lambda: function.process.poll() is not None)
        assert function.process.returncode != 0
        assert f"JOB_EVENTS={bad!r}" in function.log()
        assert "completed, failed, cancelled" in function.log()


class TestWebhook:
    """The example of the page about events, as it is there."""

    @pytest.fixture
    def receiver(self, tmp_path: Path) -> Iterator[Callable[[], list[dict[str, object]]]]:
        """What somebody's receiver has printed so far."""
        [script] = re.findall(r"    python3 -c '\n(.*?)'\n", (ROOT / "docs" / "events.md").read_text(), re.DOTALL)
        port, printed = str(free_port()), tmp_path / "printed"
        with printed.open("w") as out:
            command = [sys.executable, "-c", textwrap.dedent(script).replace("8000", port)]
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        eventually(lambda: answers(int(port)))
        self.url = f"http://localhost:{port}"
        yield lambda: [json.loads(line) for line in printed.read_text().splitlines()]
        process.kill()
        process.wait()

    def test_a_webhook_is_told_of_each_completed_job(self, receiver, tmp_path: Path) -> None:
        work = {"JOB_WORK": "tests.sample_work:work", "EFFECTS": str(tmp_path / "effects")}
        arguments = ("--component", "webhook")
        with one_machine(str(tmp_path / "data"), *arguments, WEBHOOK_URL=self.url, **work) as local:
            api = Api(local.url)
            failed = api.submit("fail it-is-no-use")["id"]
            job_id = api.submit("return")["id"]
            [told] = eventually(receiver)
            assert told == {"id": job_id, "status": "complete", "result": {"start": "return", "end": "2"}}
            assert api.status(failed)["status"] == "failed", "of which no Trigger asks to be told"

    @pytest.mark.parametrize(("answer", "ours"), [(200, 204), (302, 502), (404, 502), (500, 502)])
    def test_what_the_webhook_did_not_take_is_brought_again(
        self, start: Start, broker: Broker, answer: int, ours: int
    ) -> None:
        broker.answers = [answer]
        event = {"specversion": "1.0", "type": "dev.knative-jobs.job.completed", "source": "/jobs", "id": "7"}
        headers = {f"ce-{name}": value for name, value in event.items()} | {"content-type": "application/json"}
        webhook = self.start_webhook(start, broker.url)
        response = webhook.request("POST", headers=headers, body=b'{"id": "1", "status": "complete", "attempt": 1}')
        assert (response.status, response.data) == (ours, b"")
        [(sent, body)] = broker.events
        assert (sent["idempotency-key"], body) == ("7", {"id": "1", "status": "complete"})
        broker.server.stop()
        assert webhook.request("POST", headers=headers, body=b"{}").status == 502

    def start_webhook(self, start: Start, url: str) -> Function:
        own = {"FUNCTION_TARGET": "webhook", "FUNCTION_SOURCE": "examples/webhook.py", "WEBHOOK_URL": url}
        return start("openapi", **own).ready()


def test_on_one_machine_what_no_trigger_asks_for_is_not_emitted(tmp_path: Path) -> None:
    webhook = manifests.COMPONENTS / "webhook"

    def job_events(*components: Path) -> str:
        return supervisor._job_events(manifests.triggers(manifests.BASE, *components))

    assert job_events() == "none"
    assert job_events(webhook) == "completed"
    (tmp_path / "trigger.yaml").write_text((webhook / "trigger.yaml").read_text().replace("type:", "source:"))
    assert job_events(tmp_path) == "completed failed cancelled"
