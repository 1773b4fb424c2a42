"""Kinds of job, as one machine and the overlays for kind have them: `word-count`, and `primes` in a JobSink.

A cluster also needs the kind `sum`: ./scripts/kind deploy --overlay examples/in-node
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, answers, eventually, free_port
from tests.e2e.conftest import Api, one_machine

FOR_HOURS = {"below": 10**12}


def submit(api: Api, **job: object) -> str:
    answer = api.request("POST", "/jobs", body=json.dumps(job))
    assert answer.status == 202, answer.data
    return str(answer.json()["id"])


@pytest.fixture(scope="module")
def in_node(
    request: pytest.FixtureRequest, on_cluster: bool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    """The API with the kind `sum`, whose work is a service in Node."""
    if on_cluster:
        yield request.getfixturevalue("api")
        return
    node = shutil.which("node")
    assert node, "Node is missing: apt-get install nodejs"
    kinds = Path(shutil.copytree(ROOT / "examples/in-node/kinds", tmp_path_factory.mktemp("in-node") / "kinds"))
    port = free_port()
    for name, here, there in (
        ("kind.env", ":8081/", f":{port}/"),
        ("kustomization.yaml", "../../../../knative", os.path.relpath(ROOT / "knative", kinds / "sum")),
    ):
        file = kinds / "sum" / name
        file.write_text(file.read_text().replace(here, there))
    with subprocess.Popen([node, kinds / "sum" / "service.mjs", str(port)]) as service:
        try:
            eventually(lambda: answers(port))
            with one_machine(str(tmp_path_factory.mktemp("data")), "--kinds", str(kinds)) as local:
                yield Api(local.url)
        finally:
            service.kill()


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


def test_a_service_in_another_language_does_the_work(in_node: Api) -> None:
    done = in_node.wait_for(submit(in_node, kind="sum", input={"numbers": [1, 2, 3.5]}), "complete", "failed")
    assert done["result"] == {"sum": 6.5, "key": f"{done['id']}.1"}
    assert done["progress"] == 1
    refused = in_node.wait_for(submit(in_node, kind="sum", input=[]), "complete", "failed")
    assert "422" in refused["error"]["message"]


def test_one_worker_does_several_jobs_at_once(in_node: Api) -> None:
    """Its scale is one, its WORKER_CONCURRENCY eight."""
    jobs = {submit(in_node, kind="sum", input={"numbers": [1] * 50, "pause": 100}) for _ in range(8)}
    eventually(lambda: jobs <= set(in_node.ids("inprogress_jobs?kind=sum")))
    for job_id in jobs:
        assert in_node.wait_for(job_id, "complete", "failed")["result"]["sum"] == 50


def test_lists_may_be_asked_for_one_kind(api: Api) -> None:
    counted = submit(api, kind="word-count", input={"text": "one"})
    plain = api.submit()["id"]
    for job_id in (counted, plain):
        api.wait_for(job_id, "complete")
    of_kind, of_default = (set(api.ids(f"completed_jobs?kind={kind}")) for kind in ("word-count", "default"))
    assert counted in of_kind - of_default
    assert plain in of_default - of_kind
    assert api.request("GET", "/completed_jobs?kind=unknown").status == 400
