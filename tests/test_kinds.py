"""Kinds of job: what a submission may name, its input, and that each kind has a queue and workers of its own."""

import json
import re

import pytest

from tests.conftest import Broker, Function, Redis, Start, eventually

KINDS = {"JOB_KINDS": "default add resize"}
RANGE = {"start": 1, "end": 2}


@pytest.fixture
def jobs(endpoint: Start, store: Redis) -> Function:
    return endpoint("jobs", **KINDS)


def submit(jobs: Function, *given: object) -> list[str]:
    answer = jobs.request("POST", "/jobs", body=json.dumps(given))
    assert answer.status == 202, answer.data
    return [job["id"] for job in answer.json()]


def add(*numbers: int) -> dict[str, object]:
    return {"kind": "add", "input": list(numbers)}


def get(endpoint: Start, path: str) -> object:
    target = path.partition("?")[0].strip("/").partition("/")[0]
    answer = endpoint(target, **KINDS).request("GET", path)
    assert answer.status == 200, answer.data
    return answer.json()


class TestSubmission:
    def test_a_job_has_the_kind_and_input_it_was_submitted_with(self, jobs: Function, endpoint: Start) -> None:
        answer = jobs.request("POST", "/jobs", body=json.dumps(add(1, 2)))
        job = answer.json()
        assert job == {"id": job["id"], "kind": "add", "input": [1, 2], "status": "submitted"}
        shown = get(endpoint, f"/jobs_status?job_id={job['id']}")
        assert shown == job | {"submitted-at": shown["submitted-at"]}  # type: ignore[call-overload]

    def test_the_default_kind_is_as_it_was_before_there_were_kinds(self, jobs: Function) -> None:
        named = jobs.request("POST", "/jobs", body=json.dumps(RANGE | {"kind": "default"})).json()
        assert named == RANGE | {"id": named["id"], "status": "submitted"}

    def test_a_kind_may_have_start_and_end_and_the_default_one_input(self, jobs: Function, endpoint: Start) -> None:
        for given in (RANGE | {"kind": "add"}, RANGE | {"input": {"deep": [None]}}):
            (job_id,) = submit(jobs, given)
            record = get(endpoint, f"/jobs_status?job_id={job_id}")
            assert isinstance(record, dict)
            assert {name: record[name] for name in given} == given

    @pytest.mark.parametrize(
        "written",
        ["1.10", '{"b":1,"a":2}', '{ "a" : [ 1 ,2 ] }', '"\\u00e9\\/"', '"é😀"', "null", "[]", "12345678901234567890"],
    )
    def test_input_stays_as_it_was_written_byte_for_byte(self, jobs: Function, endpoint: Start, written: str) -> None:
        body = f'{{"kind": "add", "input": {written}}}'.encode()
        answer = jobs.request("POST", "/jobs", body=body)
        shown = endpoint("jobs_status", **KINDS).request("GET", f"/jobs_status?job_id={answer.json()['id']}")
        for data in (answer.data, shown.data):
            assert f'"input":{written},'.encode() in data

    @pytest.mark.parametrize(
        ("job", "why"),
        [
            ('{"kind": "sort", "input": 1}', "kind is one of: default, add, resize"),
            ('{"kind": "", "input": 1}', "not the name of a kind"),
            ('{"kind": "Add", "input": 1}', "not the name of a kind"),
            ('{"kind": "add\\n", "input": 1}', "not the name of a kind"),
            (f'{{"kind": "{"a" * 64}", "input": 1}}', "not the name of a kind"),
            ('{"kind": 1, "input": 1}', "not the name of a kind"),
            ('{"kind": null, "input": 1}', "not the name of a kind"),
            ('{"kind": "add", "start": 1}', "has no end"),
            ('{"input": 1}', "has no start"),
            (f'{{"kind": "add", "input": "{"x" * 262_143}"}}', "262144 is the most"),
            (f'{{"kind": "add", "input": {"[" * 600}{"]" * 600}}}', "nested more than"),
            (f'{{"kind": "add", "input": {"9" * 5000}}}', "digits"),
            ('{"kind": "add", "input": "\\ud800"}', "half of a surrogate pair"),
            ('{"kind": "add", "input": NaN}', "not JSON"),
            ('{"kind": "add", "input": 1, "inputs": 2}', "fields that a job does not have: 'inputs'"),
        ],
    )
    @pytest.mark.parametrize("place", ["{}", '[{{"kind": "add"}}, {}]'], ids=["alone", "in a batch"])
    def test_what_is_wrong_is_said_and_nothing_is_stored(
        self, jobs: Function, store: Redis, job: str, why: str, place: str
    ) -> None:
        answer = jobs.request("POST", "/jobs", body=place.format(job))
        assert (answer.status, answer.headers["Content-Type"]) == (400, "application/problem+json")
        assert why in answer.json()["detail"]
        assert len(answer.data) < 1000
        assert not store.client.keys("job.*")

    def test_input_of_the_greatest_length_is_taken(self, jobs: Function) -> None:
        assert submit(jobs, {"kind": "add", "input": "x" * 262_142})

    def test_a_mixed_batch_keeps_its_order(self, jobs: Function, endpoint: Start, store: Redis) -> None:
        ids = submit(jobs, add(1), RANGE, {"kind": "resize"}, add(2))
        assert [job["id"] for job in get(endpoint, "/incomplete_jobs")] == ids  # type: ignore[attr-defined]
        assert store.client.zrange("jobs.due.add", 0, -1) == [ids[0], ids[3]]
        assert store.client.zrange("jobs.due", 0, -1) == [ids[1]]

    def test_the_same_idempotency_key_with_another_kind_or_input_is_another_submission(self, jobs: Function) -> None:
        other = {"kind": "resize", "input": [1]}
        answers = [
            jobs.request("POST", "/jobs", body=json.dumps(job), headers={"Idempotency-Key": "k"})
            for job in (add(1), add(1), add(2), other)
        ]
        assert [answer.status for answer in answers] == [202, 202, 422, 422]
        assert answers[0].json() == answers[1].json()

    def test_the_bound_on_waiting_jobs_is_for_each_kind(self, start: Start, store: Redis) -> None:
        jobs = start("jobs", **KINDS, MAX_QUEUED_JOBS="2").ready()

        def status(*batch: object) -> int:
            return jobs.request("POST", "/jobs", body=json.dumps(batch)).status

        assert [status(add(1), add(2)), status(add(3)), status(RANGE, {"kind": "resize"})] == [202, 429, 202]
        before = store.client.dbsize()
        assert status({"kind": "resize"}, add(3)) == 429
        assert store.client.dbsize() == before, "and of a batch that does not fit nothing is stored"


class TestWork:
    def test_it_gets_kind_and_input(self, jobs: Function, worker: Start, status) -> None:
        (job_id,) = submit(jobs, {"kind": "add", "input": {"text": "é", "numbers": [1, 2.5, None]}})
        function = worker(JOB_KIND="add", JOB_WORK="unruly_work:what_it_gets")
        assert function.deliver(job_id) == 204
        expected = {"kind": "add", "input": {"text": "é", "numbers": [1, 2.5, None]}, "start": None, "end": None}
        assert status(job_id)["result"] == expected

    def test_a_worker_claims_jobs_of_its_kind_alone(self, jobs: Function, worker: Start, store: Redis) -> None:
        mine, other, plain, mine_too = submit(jobs, add(1), {"kind": "resize"}, RANGE, add(2))
        function = worker(JOB_KIND="add", JOB_WORK="unruly_work:what_it_gets")
        assert function.deliver(other) == 204
        done = {job_id: store.record(job_id)["status"] == "complete" for job_id in (mine, other, plain, mine_too)}
        assert done == {mine: True, other: False, plain: False, mine_too: True}

    def test_each_event_names_the_kind_for_triggers_to_filter_by(
        self, start: Start, worker: Start, broker: Broker, store: Redis
    ) -> None:
        (job_id, _) = submit(start("jobs", **KINDS, K_SINK=broker.url).ready(), add(1), RANGE)
        worker(JOB_KIND="add", JOB_WORK="unruly_work:what_it_gets", K_SINK=broker.url).deliver(job_id)
        eventually(lambda: len(broker.events) == 3)
        told = {(headers["ce-type"].rpartition(".")[2], headers["ce-jobkind"]) for headers, _ in broker.events}
        assert told == {("submitted", "add"), ("submitted", "default"), ("completed", "add")}

    def test_the_sweeper_announces_the_first_jobs_of_each_kind(
        self, jobs: Function, start: Start, broker: Broker
    ) -> None:
        submit(jobs, *[RANGE] * 20, add(1))
        sweeper = start("sweeper", **KINDS, K_SINK=broker.url, SWEEP_SECONDS="0").ready()
        eventually(
            lambda: (
                sweeper.request("POST").status == 204
                and {headers["ce-jobkind"] for headers, _ in broker.events} == {"default", "add"}
            )
        )


class TestLists:
    def test_they_may_be_asked_for_one_kind(self, jobs: Function, endpoint: Start) -> None:
        ids = submit(jobs, add(1), RANGE, add(2))
        for listing in ("/incomplete_jobs", "/dashboard/jobs"):
            assert {job["id"] for job in get(endpoint, f"{listing}?kind=add")} == {ids[0], ids[2]}  # type: ignore[attr-defined]
            assert {job["id"] for job in get(endpoint, f"{listing}?kind=default")} == {ids[1]}  # type: ignore[attr-defined]
            assert get(endpoint, f"{listing}?kind=resize") == []

    @pytest.mark.parametrize("kind", ["", "&kind=add"])
    def test_pages_have_each_job_once_and_in_order(self, jobs: Function, endpoint: Start, kind: str) -> None:
        ids = submit(jobs, *[add(n) if n % 3 else RANGE for n in range(30)])
        expected = [job_id for n, job_id in enumerate(ids) if n % 3 or not kind]
        function, path, seen = endpoint("incomplete_jobs", **KINDS), f"/incomplete_jobs?limit=7{kind}", list[str]()
        while path:
            answer = function.request("GET", path)
            seen += [job["id"] for job in answer.json()]
            link = re.fullmatch(r'<(\S+)>; rel="next"', answer.headers.get("Link", ""))
            path = link[1] if link else ""
        assert seen == expected

    def test_a_page_of_long_records_is_shorter_than_its_limit(self, jobs: Function, endpoint: Start) -> None:
        for _ in range(6):
            submit(jobs, *[{"kind": "add", "input": "x" * 200_000}] * 4)
        answer = endpoint("incomplete_jobs", **KINDS).request("GET", "/incomplete_jobs?limit=24")
        assert 1 <= len(answer.json()) < 24
        assert len(answer.data) < 5 * 1024 * 1024
        assert 'rel="next"' in answer.headers["Link"]

    @pytest.mark.parametrize("path", ["/incomplete_jobs", "/dashboard/jobs", "/dashboard/overview"])
    def test_of_a_kind_that_is_not_there_they_say_so(self, endpoint: Start, store: Redis, path: str) -> None:
        function = endpoint(path.split("/")[1], **KINDS)
        answer = function.request("GET", f"{path}?kind=sort")
        assert (answer.status, answer.headers["Content-Type"]) == (400, "application/problem+json")
        assert "default, add, resize" in answer.json()["detail"]


def test_the_overview_counts_one_kind_or_all(jobs: Function, endpoint: Start) -> None:
    submit(jobs, add(1), RANGE, add(2))
    counts = [get(endpoint, f"/dashboard/overview{query}")["counts"]["submitted"] for query in ("", "?kind=add")]  # type: ignore[call-overload]
    assert counts == [3, 2]


def test_metrics_are_labelled_with_the_kind(jobs: Function, endpoint: Start) -> None:
    submit(jobs, add(1), RANGE, add(2))
    text = endpoint("metrics", **KINDS).request("GET", "/metrics").data.decode()
    assert 'knative_jobs{kind="add",status="submitted"} 2.0' in text
    assert 'knative_jobs{kind="default",status="submitted"} 1.0' in text
    assert 'knative_jobs_submitted_total{kind="add"} 2.0' in text


@pytest.mark.parametrize(
    ("setting", "value"), [("JOB_KINDS", "default Add"), ("JOB_KIND", "a b"), ("JOBSINK_KINDS", "-a")]
)
def test_a_setting_that_names_no_kind_stops_the_start_and_says_what_a_kind_is(
    start: Start, setting: str, value: str
) -> None:
    function = start("sweeper", **{setting: value})
    eventually(lambda: function.process.poll() is not None)
    assert function.process.returncode
    assert setting in function.log()
    assert "1 to 63 small letters, digits and hyphens" in function.log()
