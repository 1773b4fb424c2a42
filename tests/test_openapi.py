"""The OpenAPI document: it is valid, complete, and what the API does."""

import hashlib
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from knative_jobs.web import links
from local import manifests
from tests.conftest import ROOT, Redis, Start, http, problem
from tests.e2e.conftest import one_machine

FILE = ROOT / "functions" / "knative_jobs" / "web" / "openapi.json"
DOCUMENT = json.loads(FILE.read_text())
PUBLIC = [service for service in manifests.services() if service.public]

# What schemathesis may not take for a fault.
EXPECTED = """
[checks]
# A body over 1 MiB is refused as such, whatever else is wrong with it.
negative_data_rejection.expected-statuses = [400, 404, 405, 413]
# A job's status may not allow it, and an idempotency key may stand for other jobs.
positive_data_acceptance.expected-statuses = [200, 202, 204, 404, 409, 422]

# No schema says that one parameter of several must say which jobs are meant.
[[operations]]
include-path-regex = "^/(cancel|retry)_jobs$"
[operations.checks]
positive_data_acceptance.expected-statuses = [200, 202, 400]
"""


def test_it_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_it_is_served(endpoint: Start) -> None:
    openapi = endpoint("openapi")
    answer = openapi.request("GET", "/openapi.json")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    expected = json.loads(FILE.read_text()) | {"servers": [{"url": openapi.url}]}
    schemas = expected["components"]["schemas"]
    schemas["Kind"]["enum"] = ["default"]
    schemas["MaxAttempts"]["maximum"], schemas["Retention"]["maximum"] = 3, 7 * 24 * 3600
    assert answer.json() == expected


def test_it_has_every_public_route_and_method_and_no_other(endpoint: Start) -> None:
    served = {
        (route, method.lower())
        for service in PUBLIC
        for route in importlib.import_module(service.target).__dict__[service.target].routes
        for method in endpoint(service.target).request("OPTIONS", route).headers["Allow"].split(", ")
        if method != "HEAD"
    }
    assert {(path, method) for path, item in DOCUMENT["paths"].items() for method in item} == served


def test_every_operation_takes_the_parameters_that_are_described(endpoint: Start, store: Redis) -> None:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            parameters = [
                DOCUMENT["components"]["parameters"].get(each.get("$ref", "").rpartition("/")[2], each)
                for each in operation.get("parameters", [])
            ]
            described = {each["name"] for each in parameters if each["in"] == "query"}
            function = endpoint(links.service_of(path).replace("-", "_"))
            detail = problem(function.request(method.upper(), f"{path}?colour=red"), 400)
            takes = detail.partition("This takes: ")[2].removesuffix(".")
            assert set(filter(None, takes.split(", "))) == described, (path, method)


def test_it_names_every_public_service() -> None:
    (cluster,) = [server for server in DOCUMENT["servers"] if "variables" in server]
    assert set(cluster["variables"]["service"]["enum"]) == {service.name for service in PUBLIC}


def test_every_example_fits_its_schema() -> None:
    checked = 0
    for part in parts(DOCUMENT):
        examples = [part["example"]] if "example" in part else [e["value"] for e in part.get("examples", {}).values()]
        for example in examples if "schema" in part else []:
            validator(part["schema"]).validate(example)
            checked += 1
    assert checked > 20


def test_every_field_of_a_record_is_described(start: Start, endpoint: Start, store: Redis, tmp_path: Path) -> None:
    work = {"JOB_WORK": "sample_work:work", "EFFECTS": str(tmp_path / "effects"), "JOB_MAX_ATTEMPTS": "1"}
    worker = start("worker", **work).ready()
    for what in ("report 0.2", "raise oh", "return"):
        job = endpoint("jobs").request("POST", "/jobs", body=json.dumps({"start": what, "end": 1})).json()
        worker.deliver(job["id"])
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    cancelled = endpoint("jobs").request("POST", "/jobs", body=b'{"start": 1, "end": 2}', headers=trace).json()
    endpoint("cancel_job").request("POST", f"/cancel_job?job_id={cancelled['id']}")
    jobs = endpoint("completed_jobs").request("GET").json() + endpoint("incomplete_jobs").request("GET").json()
    assert {job["status"] for job in jobs} == {"complete", "failed", "cancelled"}
    for job in jobs:
        validator({"$ref": "#/components/schemas/Job", "unevaluatedProperties": False}).validate(job)


@pytest.mark.timeout(900)
def test_no_answer_is_undocumented_whatever_is_sent(tmp_path: Path) -> None:
    (tmp_path / "expected.toml").write_text(EXPECTED)
    program = [Path(sys.executable).with_name("schemathesis"), "--config-file", "expected.toml", "run", "openapi.json"]
    tokens = f"tester:write:{hashlib.sha256(b'secret').hexdigest()}"
    limits = {"JOB_TIMEOUT_SECONDS": "31536000"}  # the document says no more than holds for all kinds
    with one_machine(str(tmp_path / "data"), JOB_SECONDS="0", API_TOKENS=tokens, **limits) as local:
        described = http.request("GET", f"{local.url}/openapi.json", headers={"Authorization": "Bearer secret"}).json()
        # No schema says whether a time is over, and each `wait` for a job that is due later takes as long as it may.
        for later in ("run-at", "delay"):
            del described["components"]["schemas"]["NewJob"]["properties"][later]
        del described["paths"]["/jobs"]["post"]["requestBody"]["content"]["application/json"]["examples"]["delayed"]
        (tmp_path / "openapi.json").write_text(json.dumps(described))
        options = ["--url", local.url, "--max-examples", "50", "--continue-on-failure"]
        options += ["--header", "Authorization: Bearer secret"]
        done = subprocess.run(
            [*program, *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            errors="replace",
        )
    report = "\n".join(line[:500] for line in done.stdout.splitlines())
    assert done.returncode == 0, report + done.stderr
    operations = sum(len(methods) for methods in DOCUMENT["paths"].values())
    assert f"Tested: {operations}\n" in report


def parts(document: Any) -> Iterator[dict[str, Any]]:
    """Every object within the document."""
    if isinstance(document, dict):
        yield document
    children = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    for child in children:
        yield from parts(child)


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({"components": DOCUMENT["components"], **schema})
