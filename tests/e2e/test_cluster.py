"""What only a cluster shows. Needs kubectl, pointed at it."""

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import ROOT, eventually
from tests.e2e.conftest import Api

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
TO_ZERO_S = 240
DELETED_WITHIN_S = 90
"""With nothing at work. The namespace itself would wait for half of the longest grace period, 300 s."""
WORKERS = "serving.knative.dev/service=worker"


@pytest.fixture
def kubectl(request: pytest.FixtureRequest) -> Any:
    namespace = request.config.getoption("--namespace")

    def kubectl(*arguments: str) -> dict[str, Any]:
        command = ["kubectl", "-n", namespace, *arguments]
        return dict(json.loads(subprocess.check_output([*command, "-o", "json"]) or b"{}"))

    return kubectl


@pytest.fixture
def worker_pods(kubectl: Any) -> Any:
    def worker_pods() -> dict[str, str]:
        """The names of the worker's pods by their addresses."""
        pods = kubectl("get", "pods", "-l", WORKERS)["items"]
        return {
            pod["status"].get("podIP", ""): pod["metadata"]["name"]
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"]
        }

    return worker_pods


def test_no_worker_runs_without_work_and_one_comes_for_a_job(api: Api, worker_pods: Any) -> None:
    eventually(lambda: not worker_pods(), within_s=TO_ZERO_S)
    done = api.wait_for(api.submit()["id"], "complete", within_s=120)
    assert done["worker-ip"] in worker_pods(), "worker-ip is a pod's own"


def test_endpoints_come_from_zero(api: Api, kubectl: Any) -> None:
    label = "serving.knative.dev/service=failed-jobs"
    eventually(lambda: not kubectl("get", "pods", "-l", label)["items"], within_s=TO_ZERO_S)
    assert api.request("GET", "/failed_jobs", timeout=60).status == 200


@pytest.fixture
def work_takes_20_seconds(kubectl: Any) -> Iterator[None]:
    """Let the stand-in take long enough to be interrupted."""
    path = "/spec/template/spec/containers/0/env"
    place = len(kubectl("get", "ksvc", "worker")["spec"]["template"]["spec"]["containers"][0]["env"])
    longer = {"op": "add", "path": f"{path}/-", "value": {"name": "JOB_SECONDS", "value": "20"}}

    def patch(change: dict[str, Any]) -> None:
        generation = kubectl("patch", "ksvc", "worker", "--type=json", "-p", json.dumps([change]))["metadata"][
            "generation"
        ]

        def ready() -> bool:
            status = kubectl("get", "ksvc", "worker")["status"]
            conditions = {c["type"]: c["status"] for c in status["conditions"]}
            return status["observedGeneration"] >= generation and conditions["Ready"] == "True"

        eventually(ready, within_s=180)

    patch(longer)
    yield
    patch({"op": "remove", "path": f"{path}/{place}"})


@pytest.mark.usefixtures("work_takes_20_seconds")
def test_a_killed_workers_job_is_done_by_another(api: Api, worker_pods: Any, request: pytest.FixtureRequest) -> None:
    job_id = api.submit()["id"]
    victim = api.wait_for(job_id, "in progress", within_s=120)["worker-ip"]
    delete = ["kubectl", "-n", request.config.getoption("--namespace"), "delete", "pod", worker_pods()[victim]]
    subprocess.check_call([*delete, "--grace-period=0", "--force"])
    done = api.wait_for(job_id, "complete", within_s=180)
    assert done["attempt"] >= 2
    assert done["worker-ip"] != victim


@pytest.fixture
def redeploy(request: pytest.FixtureRequest) -> Any:
    """Run a step of scripts/kind on the cluster, which has the overlay for kind again afterwards."""
    if not request.config.getoption("--redeploy"):
        pytest.skip("not run: only a cluster that is for tests is deployed to, with --redeploy")

    def step(*arguments: str) -> None:
        subprocess.check_call([ROOT / "scripts" / "kind", *arguments])

    yield step
    step("deploy")


def test_another_overlay_leaves_nothing_of_the_one_before(api: Api, kubectl: Any, redeploy: Any) -> None:
    def names(kind: str) -> set[str]:
        return {found["metadata"]["name"] for found in kubectl("get", kind)["items"]}

    redeploy("deploy", "--overlay", "knative/overlays/kind-long-jobs")
    assert "worker" not in names("ksvc")
    assert names("jobsink") == {"worker"}
    api.wait_for(api.submit()["id"], "complete", within_s=180)
    redeploy("deploy")
    assert "worker" in names("ksvc")
    assert names("jobsink") == set()
    api.wait_for(api.submit()["id"], "complete", within_s=180)


def test_an_idle_deployment_is_deleted_soon_and_whole(worker_pods: Any, redeploy: Any) -> None:
    eventually(lambda: not worker_pods(), within_s=TO_ZERO_S)
    began = time.monotonic()
    redeploy("delete", "--yes")
    assert time.monotonic() - began < DELETED_WITHIN_S
    assert not subprocess.check_output(["kubectl", "get", "namespace", "knative-jobs", "--ignore-not-found"])
