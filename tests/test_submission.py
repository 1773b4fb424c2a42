"""Submitting jobs: what POST /jobs answers, saves and announces."""

import json
import re
import signal
import socket
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from knative_jobs.jobs.announcement import LOOK_AGAIN_SECONDS
from tests.conftest import PATIENCE_S, Broker, Redis, Start, eventually

JOB = '{"start": "1", "end": "2"}'


class TestOneJob:
    def test_the_answer_is_the_job_and_where_to_ask_for_it(self, endpoint: Start, store: Redis) -> None:
        answer = endpoint("jobs").request("POST", "/jobs", body=JOB)
        job = answer.json()
        assert answer.status == 202
        assert uuid.UUID(job["id"]).version == 4
        assert job == {"id": job["id"], "start": "1", "end": "2", "status": "submitted"}
        assert answer.headers["Location"] == f"{endpoint('jobs').url}/jobs_status?job_id={job['id']}"
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.headers["Content-Type"] == "application/json"

    def test_the_record_in_redis_is_what_people_read(self, endpoint: Start, store: Redis) -> None:
        job_id = endpoint("jobs").request("POST", "/jobs", body=JOB).json()["id"]
        record = store.record(job_id)
        submitted_at = float(record.pop("submitted-at"))
        assert record == {"id": job_id, "status": "submitted", "start": "1", "end": "2"}
        assert abs(submitted_at - time.time()) < 60

    @pytest.mark.parametrize("path", ["/jobs", "/", "/jobs/"])
    @pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", "application/json"])
    def test_the_path_and_the_content_type_do_not_matter(
        self, endpoint: Start, store: Redis, path: str, content_type: str
    ) -> None:
        answer = endpoint("jobs").request("POST", path, body=JOB, headers={"Content-Type": content_type})
        assert answer.status == 202

    @pytest.mark.parametrize(
        "value",
        ['"1"', "1", "-1.50", "1e400", "123456789012345678901234567890", '""', '"a/b\\\\/"', '"<b>\\u0000\\n\\"é漢😀"'],
    )
    def test_start_and_end_come_back_as_they_were_given(self, endpoint: Start, store: Redis, value: str) -> None:
        posted = endpoint("jobs").request("POST", "/jobs", body=f'{{"start": {value}, "end": {value}}}')
        job_id = posted.json()["id"]
        for text in (
            posted.data,
            endpoint("jobs_status").request("GET", f"/jobs_status?job_id={job_id}").data,
            endpoint("incomplete_jobs").request("GET", "/incomplete_jobs?limit=1").data.strip()[1:-1],
            endpoint("incomplete_jobs").request("GET", "/incomplete_jobs").data.strip()[1:-1],
        ):
            given, back = (
                json.loads(value, parse_float=str, parse_int=str),
                json.loads(text, parse_float=str, parse_int=str),
            )
            assert (back["start"], back["end"]) == (given, given)
            assert (b'"start":"' in text) == value.startswith('"')


class TestBatch:
    def test_the_answer_is_an_array_in_order(self, endpoint: Start, store: Redis) -> None:
        batch = [{"start": i, "end": str(i)} for i in range(1000)]
        answer = endpoint("jobs").request("POST", "/jobs", body=json.dumps(batch))
        assert answer.status == 202
        assert [(job["start"], job["end"]) for job in answer.json()] == [(i, str(i)) for i in range(1000)]
        listed = endpoint("incomplete_jobs").request("GET", "/incomplete_jobs").json()
        assert [job["id"] for job in listed] == [job["id"] for job in answer.json()]

    def test_a_batch_of_one_is_an_array_still(self, endpoint: Start, store: Redis) -> None:
        assert len(endpoint("jobs").request("POST", "/jobs", body=f"[{JOB}]").json()) == 1


class TestIdempotencyKey:
    def post(self, endpoint: Start, body: str, key: str) -> tuple[int, object, str | None]:
        answer = endpoint("jobs").request("POST", "/jobs", body=body, headers={"Idempotency-Key": key})
        return answer.status, answer.json(), answer.headers.get("Idempotency-Replayed")

    @pytest.mark.parametrize("body", [JOB, f"[{JOB}, {JOB}]"])
    def test_the_same_key_and_body_give_the_same_jobs(self, endpoint: Start, store: Redis, body: str) -> None:
        first = self.post(endpoint, body, "k1")
        assert first[::2] == (202, None)
        assert self.post(endpoint, body, "k1") == (202, first[1], "true")
        assert self.post(endpoint, body, "k2")[1] != first[1]

    def test_the_same_key_with_another_body_is_refused(self, endpoint: Start, store: Redis) -> None:
        self.post(endpoint, JOB, "k1")
        for other in ('{"start": 1, "end": "2"}', '{"start": "1", "end": "3"}', f"[{JOB}, {JOB}]"):
            assert self.post(endpoint, other, "k1")[0] == 422
        assert store.client.zcard("jobs.submitted") == 1

    def test_a_key_is_kept_for_a_day_and_never_as_it_is(self, endpoint: Start, store: Redis) -> None:
        self.post(endpoint, JOB, "my key")
        (kept,) = store.client.keys("idempotency.*")
        assert "my key" not in kept
        assert 86_300 < store.client.ttl(kept) <= 86_400

    def test_many_at_once_make_one_job(self, endpoint: Start, store: Redis) -> None:
        endpoint("jobs")
        for round_ in range(20):
            barrier = threading.Barrier(8)

            def post(key: str, barrier: threading.Barrier = barrier) -> object:
                barrier.wait()
                return self.post(endpoint, JOB, key)[1]

            with ThreadPoolExecutor(8) as threads:
                answers = list(threads.map(post, [f"round {round_}"] * 8))
            assert len({job["id"] for job in answers}) == 1

    def test_a_repetition_after_the_retention_says_so_and_submits_nothing(
        self, endpoint: Start, start: Start, store: Redis
    ) -> None:
        worker = start("worker", JOB_SECONDS="0", JOB_RETENTION_SECONDS="0.1", WORKER_DRAIN_SECONDS="0").ready()
        body = f"[{JOB}, {JOB}]"
        first, second = self.post(endpoint, body, "k")[1]
        worker.deliver(first["id"])
        eventually(lambda: endpoint("sweeper").request("POST").status == 204 and not store.record(first["id"]))
        assert self.post(endpoint, body, "k") == (202, [first, second], "true"), "one is left, so its id is of use"
        worker.deliver(second["id"])
        eventually(lambda: endpoint("sweeper").request("POST").status == 204 and not store.record(second["id"]))
        status, problem, _ = self.post(endpoint, body, "k")
        assert (status, problem["status"]) == (410, 410)
        assert "take a new key" in problem["detail"]
        assert self.post(endpoint, JOB, "k")[0] == 422
        assert store.client.zcard("jobs.incomplete") == 0
        assert self.post(endpoint, body, "another")[0] == 202

    def test_a_key_may_not_be_endless(self, endpoint: Start, store: Redis) -> None:
        assert self.post(endpoint, JOB, "k" * 256)[0] == 400


def test_over_max_queued_jobs_a_submission_is_refused_before_anything_is_written(start: Start, store: Redis) -> None:
    jobs = start("jobs", MAX_QUEUED_JOBS="3").ready()
    assert jobs.request("POST", "/jobs", body=f"[{JOB}, {JOB}]").status == 202
    before = store.client.dbsize()
    refused = jobs.request("POST", "/jobs", body=f"[{JOB}, {JOB}]", headers={"Idempotency-Key": "k"})
    assert refused.status == 429
    assert int(refused.headers["Retry-After"]) > 0
    assert store.client.dbsize() == before
    assert jobs.request("POST", "/jobs", body=JOB).status == 202


class TestEvents:
    def test_a_submission_is_announced_as_a_cloudevent_in_binary_mode(self, start: Start, broker: Broker) -> None:
        jobs = start("jobs", K_SINK=broker.url).ready()
        job = jobs.request("POST", "/jobs", body=JOB).json()
        eventually(lambda: broker.events)
        ((headers, data),) = broker.events
        assert {name: headers[name] for name in headers if name.startswith("ce-") and name != "ce-time"} == {
            "ce-specversion": "1.0",
            "ce-type": "dev.knative-jobs.job.submitted",
            "ce-source": "/jobs",
            "ce-subject": job["id"],
            "ce-jobkind": "default",
            "ce-id": headers["ce-id"],
        }
        assert re.fullmatch(rf"{job['id']}\.1\.\d{{13}}", headers["ce-id"]), "id, attempt, and when it was announced"
        assert headers["content-type"] == "application/json"
        assert data == job

    def test_each_job_of_a_small_batch_is_announced(self, start: Start, broker: Broker) -> None:
        jobs = start("jobs", K_SINK=broker.url).ready()
        batch = jobs.request("POST", "/jobs", body=f"[{JOB}, {JOB}, {JOB}]").json()
        eventually(lambda: len(broker.events) == 3)
        assert {headers["ce-subject"] for headers, _ in broker.events} == {job["id"] for job in batch}

    def test_a_long_queue_needs_few_events(self, start: Start, broker: Broker) -> None:
        """The workers that come for the first jobs go on until nothing is due, and with what doubles it one joins."""
        jobs = start("jobs", K_SINK=broker.url).ready()
        batch = jobs.request("POST", "/jobs", body=f"[{','.join([JOB] * 100)}]").json()
        eventually(lambda: len(broker.events) == 34)
        jobs.request("POST", "/jobs", body=JOB)
        jobs.kill(signal.SIGTERM)  # what is open ends first
        announced = {batch[i]["id"] for i in (*range(32), 32, 64)}
        assert {headers["ce-subject"] for headers, _ in broker.events} == announced

    def test_a_job_that_finds_all_emissions_open_is_announced_once_one_has_ended(
        self, start: Start, broker: Broker
    ) -> None:
        """A Broker may hold each until a worker is done; what the open ones are about may be taken long since."""
        broker.answers_after_s = 2
        jobs, cancel_job = start("jobs", K_SINK=broker.url).ready(), start("cancel_job").ready()
        for _ in range(32):
            job = jobs.request("POST", "/jobs", body=JOB).json()
            assert cancel_job.request("POST", f"/cancel_job?job_id={job['id']}").status == 200
        last = jobs.request("POST", "/jobs", body=JOB).json()
        eventually(lambda: last["id"] in {headers["ce-subject"] for headers, _ in broker.events})

    def test_on_sigterm_open_emissions_end_and_what_waits_goes_out(self, start: Start, broker: Broker) -> None:
        broker.answers_after_s = 1
        jobs = start("jobs", K_SINK=broker.url).ready()
        ids = {jobs.request("POST", "/jobs", body=JOB).json()["id"] for _ in range(32)}
        eventually(lambda: len(broker.events) == 32)
        cancelled = start("cancel_job").ready().request("POST", f"/cancel_job?job_id={min(ids)}")
        assert cancelled.status == 200, "the next is not too far back in the queue to be announced"
        last = jobs.request("POST", "/jobs", body=JOB).json()["id"]
        jobs.process.send_signal(signal.SIGTERM)
        assert jobs.process.wait(PATIENCE_S) == 0
        assert broker.answered == 33
        assert {headers["ce-subject"] for headers, _ in broker.events} == ids | {last}

    @pytest.mark.parametrize("target", ["worker", "sweeper"])
    def test_on_sigterm_what_a_function_without_a_loop_emits_ends_too(
        self, start: Start, broker: Broker, target: str
    ) -> None:
        broker.answers_after_s = 1
        jobs = start("jobs", K_SINK="http://127.0.0.1:9/").ready()
        first, _ = jobs.request("POST", "/jobs", body=f"[{JOB}, {JOB}]").json()
        settings = {
            "K_SINK": broker.url,
            "SWEEP_SECONDS": "0",
            "JOB_SECONDS": "0",
            "WORKER_DRAIN_SECONDS": "0",
            "JOB_EVENTS": "none",
        }
        function = start(target, **settings).ready()
        eventually(lambda: function.deliver(first["id"]) == 204 and broker.events)
        function.process.send_signal(signal.SIGTERM)
        assert function.process.wait(PATIENCE_S) == 0
        assert broker.answered == len(broker.events)

    def test_the_answer_waits_neither_for_a_slow_broker_nor_for_one_that_is_away(
        self, start: Start, broker: Broker
    ) -> None:
        broker.answers_after_s = 1000
        silent = socket.create_server(("127.0.0.1", 0))  # takes the connection and says nothing
        sinks = (broker.url, f"http://127.0.0.1:{silent.getsockname()[1]}/", "http://127.0.0.1:9/")
        for sink in sinks:
            jobs = start("jobs", K_SINK=sink).ready()
            for _ in range(40):
                assert jobs.request("POST", "/jobs", body=JOB).status == 202
        silent.close()

    def test_a_job_that_nobody_claims_is_announced_again_within_seconds_without_the_sweeper(
        self, start: Start, broker: Broker
    ) -> None:
        """As right after a deployment: a Broker without a Trigger answers 202 and delivers to nobody."""
        jobs = start("jobs", K_SINK=broker.url).ready()
        job_id = jobs.request("POST", "/jobs", body=JOB).json()["id"]
        eventually(lambda: len(broker.events) >= 3)
        assert {headers["ce-subject"] for headers, _ in broker.events} == {job_id}
        ids = [headers["ce-id"] for headers, _ in broker.events]
        assert len(set(ids)) == len(ids), "a JobSink starts nothing for an id that it knows"
        assert start("cancel_job").ready().request("POST", f"/cancel_job?job_id={job_id}").status == 200
        time.sleep(0.5)
        announced = len(broker.events)
        time.sleep(LOOK_AGAIN_SECONDS + 1)
        assert len(broker.events) == announced, "nobody waits any more"

    def test_while_the_broker_holds_an_event_its_job_is_not_announced_again(self, start: Start, broker: Broker) -> None:
        """The default Broker answers after the worker: a worker that is slow to start needs no second event."""
        broker.answers_after_s = LOOK_AGAIN_SECONDS + 3
        jobs = start("jobs", K_SINK=broker.url).ready()
        jobs.request("POST", "/jobs", body=JOB)
        eventually(lambda: broker.answered)
        assert len(broker.events) == 1

    def test_events_over_the_bound_are_dropped_oldest_first_and_counted(
        self, start: Start, endpoint: Start, broker: Broker
    ) -> None:
        broker.answers.clear()
        jobs, cancel_job = start("jobs", K_SINK=broker.url).ready(), start("cancel_job").ready()
        ids = []
        for _ in range(67):  # each is the first in the queue, for the one before it is cancelled
            ids.append(jobs.request("POST", "/jobs", body=JOB).json()["id"])
            assert cancel_job.request("POST", f"/cancel_job?job_id={ids[-1]}").status == 200
        eventually(lambda: len(broker.events) == 32)
        broker.answers.set()
        eventually(lambda: len(broker.events) == 64)
        assert {headers["ce-subject"] for headers, _ in broker.events} == {*ids[:32], *ids[35:]}
        assert re.findall(r"an event was dropped.*; (\d+) dropped", jobs.log()) == ["1", "2"]
        metric = 'knative_jobs_events_dropped_total{kind="default"} 3.0'
        eventually(lambda: metric in endpoint("metrics").request("GET", "/metrics").data.decode())

    def test_the_sweeper_announces_again_what_nobody_claimed(self, start: Start, broker: Broker) -> None:
        job = start("jobs", K_SINK="http://127.0.0.1:9/").ready().request("POST", "/jobs", body=JOB).json()
        sweeper = start("sweeper", K_SINK=broker.url, SWEEP_SECONDS="0").ready()
        eventually(lambda: sweeper.request("POST").status == 204 and broker.events)
        headers, data = broker.events[0]
        assert headers["ce-subject"] == job["id"]
        assert data["id"] == job["id"]
