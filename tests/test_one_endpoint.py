"""All public functions in one process, by the path of the request: functions/api.py."""

import hashlib
import json

import pytest

from knative_jobs.server import by_path
from local import manifests
from tests.conftest import ROOT, Function, Redis, Start

OPENAPI = json.loads((ROOT / "functions/knative_jobs/web/openapi.json").read_text())


@pytest.fixture
def api(endpoint: Start, store: Redis) -> Function:
    return endpoint("api")


def submit(api: Function, path: str = "/jobs") -> str:
    answer = api.request("POST", path, body=b'{"start": 1, "end": 2}')
    assert answer.status == 202, answer.data
    return str(answer.json()["id"])


def test_its_functions_are_those_that_have_a_service_each() -> None:
    assert {source.stem for source in by_path.public()} == {s.target for s in manifests.services() if s.public}


OPERATIONS = [(path, method) for path, item in OPENAPI["paths"].items() for method in item]
OTHER_ANSWERS = {
    ("/jobs", "post"): 202,
    # A job that waits can be cancelled, but not retried or deleted.
    ("/retry_job", "post"): 409,
    ("/delete_job", "post"): 409,
    # These ask which jobs are meant.
    ("/cancel_jobs", "post"): 400,
    ("/retry_jobs", "post"): 400,
}


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_described_path_is_answered_by_its_function(api: Function, path: str, method: str) -> None:
    parameters = [each["$ref"] for each in OPENAPI["paths"][path][method].get("parameters", []) if "$ref" in each]
    query = f"?job_id={submit(api)}" if "#/components/parameters/job_id" in parameters else ""
    body = b'{"start": 1, "end": 2}' if (path, method) == ("/jobs", "post") else None
    answer = api.request(method.upper(), path + query, body=body, preload_content=False)
    assert answer.status == OTHER_ANSWERS.get((path, method), 200)
    answer.close()


def test_a_job_is_submitted_and_found_under_the_location_of_the_answer(api: Function) -> None:
    answer = api.request("POST", "/jobs", body=b'{"start": 1, "end": 2}')
    assert api.request("GET", answer.headers["Location"]).json()["id"] == answer.json()["id"]


def test_the_root_is_the_dashboard_for_who_looks_and_takes_jobs_as_on_a_host_of_their_own(api: Function) -> None:
    assert api.request("GET", "/").headers["Content-Type"].startswith("text/html")
    job_id = submit(api, "/")
    assert api.request("GET", f"/job_status?job_id={job_id}").json()["status"] == "submitted"


def test_a_path_that_nobody_has_is_404_and_names_those_that_are(api: Function) -> None:
    answer = api.request("GET", "/nothing")
    assert answer.status == 404
    assert "/jobs_status" in answer.json()["detail"]


def test_a_token_is_asked_for_where_the_function_asks_for_one(endpoint: Start, store: Redis) -> None:
    api = endpoint("api", API_TOKENS=f"alice:read:{hashlib.sha256(b'secret').hexdigest()}")
    bearer = {"Authorization": "Bearer secret"}
    assert api.request("GET", "/completed_jobs").status == 401
    assert api.request("GET", "/completed_jobs", headers=bearer).status == 200
    assert api.request("POST", "/jobs", headers=bearer, body=b'{"start": 1, "end": 2}').status == 403
    assert api.request("GET", "/dashboard").status == 200, "the page has no data in it"


def test_who_waits_for_a_job_holds_nobody_up(api: Function) -> None:
    job_id = submit(api)
    waiting = api.request("GET", f"/job_events?job_id={job_id}", preload_content=False)
    coming = waiting.stream(16)
    assert next(coming), "it has begun"
    assert api.request("POST", f"/cancel_job?job_id={job_id}").status == 200
    assert b"cancelled" in b"".join(coming)
