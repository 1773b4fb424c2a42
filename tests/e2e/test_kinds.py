"""Kinds of job, as one machine and the overlays for kind have them: `word-count`, and `primes` in a JobSink."""

import json

import pytest

from tests.e2e.conftest import Api

FOR_HOURS = {"below": 10**12}


def submit(api: Api, **job: object) -> str:
    answer = api.request("POST", "/jobs", body=json.dumps(job))
    assert answer.status == 202, answer.data
    return str(answer.json()["id"])


def test_the_input_of_a_job_is_what_its_work_gets(api: Api) -> None:
    job_id = submit(api, kind="word-count", input={"text": "to be or not to be"})
    done = api.wait_for(job_id, "complete", "failed")
    assert (done["kind"], done["input"]) == ("word-count", {"text": "to be or not to be"})
    assert done["result"] == {"words": 6, "frequent": {"to": 2, "be": 2, "or": 1}}
    assert not {"start", "end"} & done.keys()


def test_input_that_the_work_cannot_take_fails_the_job_and_says_why(api: Api) -> None:
    failed = api.wait_for(submit(api, kind="word-count", input=["no", "text"]), "complete", "failed")
    assert failed["status"] == "failed"
    assert "the input looks like" in failed["error"]["message"]


def test_a_job_of_hours_has_a_process_of_its_own(api: Api) -> None:
    done = api.wait_for(submit(api, kind="primes", input={"below": 100}), "complete", "failed")
    assert done["result"] == {"primes": 25}


def test_a_slow_kind_holds_up_no_other(api: Api) -> None:
    slow = [submit(api, kind="primes", input=FOR_HOURS) for _ in range(3)]
    try:
        api.wait_for(slow[0], "in progress")
        fast = submit(api, kind="word-count", input={"text": "quick"})
        assert api.wait_for(fast, "complete", "failed")["result"]["words"] == 1
        api.wait_for(api.submit()["id"], "complete")
        assert api.status(slow[0])["status"] == "in progress"
    finally:
        for job_id in slow:
            api.request("POST", f"/cancel_job?job_id={job_id}")
    for job_id in slow:
        api.wait_for(job_id, "cancelled")


@pytest.mark.parametrize("kind", ["unknown", "worker"])
def test_a_kind_that_is_not_there_is_refused_with_the_names_of_those_that_are(api: Api, kind: str) -> None:
    answer = api.request("POST", "/jobs", body=json.dumps({"kind": kind, "input": 1}))
    assert answer.status == 400
    detail = answer.json()["detail"]
    assert all(name in detail for name in (kind, "default", "word-count", "primes"))
