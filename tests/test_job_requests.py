"""Jobs that events ask for."""

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import urllib3

from harness.local_mode import LocalMode
from local import manifests
from tests.conftest import Broker, Function, Redis, Start, eventually, http, problem

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
JOB = {"start": "1", "end": "2"}


@pytest.fixture
def requests(endpoint: Start, store: Redis) -> Function:
    return endpoint("job_requests")


def ask(function: Function, data: object, **attributes: str) -> urllib3.BaseHTTPResponse:
    """Send an event in binary mode."""
    given = {"specversion": "1.0", "type": "com.example.order", "source": "/shop", "id": "17"} | attributes
    headers = {f"ce-{name}": value for name, value in given.items()} | {"content-type": "application/json"}
    return function.request("POST", headers=headers, body=json.dumps(data))


def jobs_of(store: Redis) -> list[dict[str, str]]:
    return [store.record(key.partition(".")[2]) for key in store.client.scan_iter("job.*")]


class TestAnEvent:
    def test_its_data_is_a_job_and_its_source_the_caller(self, requests: Function, store: Redis) -> None:
        answer = ask(requests, JOB, traceparent=TRACE)
        assert (answer.status, answer.data) == (204, b""), "a Trigger takes any other answer for a failed delivery"
        [job] = jobs_of(store)
        assert (job["start"], job["end"], job["status"]) == ("1", "2", "submitted")
        assert (job["submitted-by"], job["traceparent"]) == ("event:/shop", TRACE)

    def test_its_data_may_be_an_array_of_jobs_and_options(self, requests: Function, store: Redis) -> None:
        assert ask(requests, [JOB, JOB | {"delay": 60}, JOB]).status == 204
        assert sorted("run-at" in job for job in jobs_of(store)) == [False, False, True]

    def test_in_structured_mode_it_is_as_good(self, requests: Function, store: Redis) -> None:
        event = {"specversion": "1.0", "type": "x", "source": "/shop", "id": "1", "data": JOB, "traceparent": TRACE}
        headers = {"content-type": "application/cloudevents+json; charset=utf-8"}
        assert requests.request("POST", headers=headers, body=json.dumps(event)).status == 204
        [job] = jobs_of(store)
        assert (job["submitted-by"], job["traceparent"]) == ("event:/shop", TRACE)

    def test_ten_times_the_same_is_one_job(self, requests: Function, store: Redis) -> None:
        assert [ask(requests, JOB).status for _ in range(10)] == [204] * 10
        assert len(jobs_of(store)) == 1

    def test_another_id_or_source_is_another_event(self, requests: Function, store: Redis) -> None:
        for attributes in ({}, {"id": "18"}, {"source": "/other"}, {"id": "7", "source": "/shop1"}):
            assert ask(requests, JOB, **attributes).status == 204
        assert len(jobs_of(store)) == 4

    def test_it_stands_apart_from_idempotency_keys_of_requests(
        self, requests: Function, endpoint: Start, store: Redis
    ) -> None:
        endpoint("jobs").request("POST", "/jobs", body=json.dumps(JOB), headers={"Idempotency-Key": "17"})
        ask(requests, JOB)
        assert len(jobs_of(store)) == 2

    def test_after_the_retention_of_its_job_it_is_still_the_same(self, requests: Function, store: Redis) -> None:
        assert ask(requests, JOB).status == 204
        [job] = jobs_of(store)
        store.client.delete(f"job.{job['id']}")
        assert ask(requests, JOB).status == 204
        assert not jobs_of(store)

    def test_a_source_with_any_characters_is_shown_as_it_is(
        self, requests: Function, store: Redis, status: Callable[[str], dict[str, Any]]
    ) -> None:
        assert ask(requests, JOB, source="/caf%C3%A9?q=%22a%22%5C").status == 204
        [job] = jobs_of(store)
        assert status(job["id"])["submitted-by"] == 'event:/café?q="a"\\'


class TestABadEvent:
    @pytest.mark.parametrize(
        ("data", "attributes", "says"),
        [
            ({"begin": 1}, {}, "fields that a job does not have"),
            ([], {}, "1 to 1000 jobs"),
            ("text", {}, "The data of the event is not a JSON object"),
            (JOB | {"kind": "nothing"}, {}, "There is no kind nothing"),
            (JOB | {"delay": -1}, {}, "delay in the data of the event is a number"),
            (JOB, {"id": ""}, "id missing"),
        ],
    )
    def test_it_is_refused_for_good_and_says_why(
        self, requests: Function, store: Redis, data: object, attributes: dict[str, str], says: str
    ) -> None:
        """A Broker does not try again what is answered with 400."""
        assert says in problem(ask(requests, data, **attributes), 400)
        assert not store.client.keys()

    def test_the_same_id_with_other_data_is_refused(self, requests: Function, store: Redis) -> None:
        assert ask(requests, JOB).status == 204
        problem(ask(requests, JOB | {"start": "3"}), 422)
        assert len(jobs_of(store)) == 1

    def test_what_is_no_event_is_refused(self, requests: Function, store: Redis) -> None:
        problem(requests.request("POST", body=json.dumps(JOB)), 400)
        assert not store.client.keys()

    def test_its_dead_letter_says_why_in_the_log(self, start: Start) -> None:
        function = start("dead_letter").ready()
        why = {"knativeerrorcode": "400", "knativeerrordata": "The data of the event is not JSON"}
        assert ask(function, "text", type="dev.knative-jobs.job.requested", **why).status == 204
        log = function.log()
        assert "event '17' of '/shop'" in log
        assert "The data of the event is not JSON" in log

    @pytest.mark.parametrize("content_type", ["application/json", "application/cloudevents+json"])
    def test_an_event_that_is_sent_to_jobs_is_told_where_events_go(
        self, endpoint: Start, store: Redis, content_type: str
    ) -> None:
        headers = {"content-type": content_type}
        if content_type == "application/json":
            headers |= {"ce-specversion": "1.0", "ce-type": "x", "ce-source": "/shop", "ce-id": "17"}
        answer = endpoint("jobs").request("POST", "/jobs", headers=headers, body=json.dumps(JOB))
        assert "job-requests" in problem(answer, 400)
        assert not store.client.keys()


class TestWhatIsTriedAgain:
    def test_a_full_queue(self, start: Start, store: Redis) -> None:
        function = start("job_requests", MAX_QUEUED_JOBS="1").ready()
        assert ask(function, JOB).status == 204
        assert int(ask(function, JOB, id="18").headers["Retry-After"]) > 0
        problem(ask(function, JOB, id="18"), 429)

    def test_redis_away(self, start: Start, store: Redis) -> None:
        function = start("job_requests").ready()
        store.kill()
        try:
            problem(ask(function, JOB), 503)
        finally:
            store.start()
        eventually(lambda: ask(function, JOB).status == 204)
        assert len(jobs_of(store)) == 1


def test_jobs_of_an_event_are_announced(start: Start, broker: Broker) -> None:
    ask(start("job_requests", K_SINK=broker.url).ready(), JOB)
    eventually(lambda: broker.events)
    assert broker.events[0][0]["ce-type"] == "dev.knative-jobs.job.submitted"


class TestOnOneMachine:
    def broker_of(self, local: LocalMode) -> str:
        [url] = re.findall(r"takes events on (\S+)", local.said())
        return str(url)

    def jobs(self, local: LocalMode, listing: str) -> list[dict[str, Any]]:
        return list(http.request("GET", f"{local.url}/{listing}").json())

    def test_an_event_on_the_broker_that_comes_twice_is_one_job_and_a_bad_one_a_dead_letter(
        self, tmp_path: Path
    ) -> None:
        with LocalMode(tmp_path / "data", JOB_SECONDS="0") as local:
            attributes = {"specversion": "1.0", "type": "dev.knative-jobs.job.requested", "source": "/shop"}
            headers = {f"ce-{name}": value for name, value in attributes.items()} | {"content-type": "application/json"}
            for event_id, data in (("1", JOB), ("1", JOB), ("2", {"no": "job"}), ("3", "text"), ("4", [])):
                sent = http.request(
                    "POST", self.broker_of(local), headers=headers | {"ce-id": event_id}, body=json.dumps(data)
                )
                assert sent.status == 202
            eventually(lambda: self.jobs(local, "completed_jobs"))
            eventually(lambda: all(f"event '{n}' of '/shop'" in local.said() for n in (2, 3, 4)))
            assert len(self.jobs(local, "completed_jobs")) == 1
            assert not self.jobs(local, "incomplete_jobs")

    def test_a_chain_of_two_jobs_with_one_trace(self, tmp_path: Path) -> None:
        work = {"JOB_WORK": "tests.sample_work:work", "EFFECTS": str(tmp_path / "effects")}
        arguments = ("--component", "chain", "--kinds", str(manifests.KINDS))
        with LocalMode(tmp_path / "data", *arguments, **work) as local:
            first = http.request(
                "POST", f"{local.url}/jobs", body='{"start": "return", "end": 1}', headers={"traceparent": TRACE}
            ).json()
            complete = eventually(lambda: len(done := self.jobs(local, "completed_jobs")) == 2 and done)
            assert complete[0]["id"] == first["id"]
            second = complete[1]
            assert (second["kind"], second["submitted-by"]) == ("word-count", "event:/examples/chain")
            assert json.loads(second["input"]["text"]) == complete[0]["result"] == {"start": "return", "end": 1}
            assert second["traceparent"].split("-")[1] == TRACE.split("-")[1]

    def test_a_recurring_job_of_a_ping_source(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        component = tmp_path / "components" / "often"
        shutil.copytree(manifests.COMPONENTS / "recurring", component)
        text = (component / "pingsource.yaml").read_text()
        (component / "pingsource.yaml").write_text(text.replace("0 6 * * 1-5", "* * * * *"))
        [declared] = manifests.ping_sources(component)
        assert declared.sink == f"http://job-requests.{manifests.DOMAIN}"
        assert declared.timezone == "Europe/Berlin"
        with LocalMode(tmp_path / "data", "--component", str(component), JOB_SECONDS="0") as local:
            began_at = time.time()
            [job] = eventually(lambda: self.jobs(local, "completed_jobs"))
            assert job["submitted-by"] == "event:/apis/v1/namespaces/default/pingsources/recurring"
            assert job["submitted-at"] % 60 < time.time() - began_at + 1, "at the full minute, not at the start"
