"""`scripts/kind delete`, with the real kubectl on an API server that writes down what it is asked for."""

import os
import pty
from typing import Any

import pytest

from cluster.delete import Held, question, remains
from tests.cluster.api_server import ApiServer
from tests.cluster.conftest import Run

pytestmark = pytest.mark.timeout(300)
POD = {"serving.knative.dev/service": "jobs"}


@pytest.fixture
def deployed(cluster: ApiServer) -> ApiServer:
    """What is there of a deployment, each with a pod that goes when it goes."""
    cluster.add("v1", "Namespace", "knative-jobs")
    for name in ("jobs", "worker"):
        cluster.add("serving.knative.dev/v1", "Service", name)
        owner = [{"uid": name, "controller": True}]
        cluster.add("v1", "Pod", f"{name}-pod", metadata={"labels": POD, "ownerReferences": owner})
    cluster.add("sources.knative.dev/v1", "PingSource", "sweeper")
    cluster.add("eventing.knative.dev/v1", "Trigger", "worker-trigger")
    cluster.add("eventing.knative.dev/v1", "Broker", "default")
    cluster.add("apps/v1", "Deployment", "redis")
    cluster.add("v1", "PersistentVolumeClaim", "redis-data")
    cluster.add("v1", "Secret", "api-tokens")
    cluster.add("v1", "Secret", "other-namespace", "default")
    return cluster


def test_what_calls_goes_first_then_the_functions_then_redis_then_the_namespace(deployed: ApiServer, kind: Run) -> None:
    done = kind("delete", "--yes")
    assert done.returncode == 0, done.stderr
    assert deployed.changes == [
        "DELETE sources.knative.dev/pingsources/sweeper",
        "DELETE eventing.knative.dev/triggers/worker-trigger",
        "DELETE serving.knative.dev/services/jobs",
        "DELETE serving.knative.dev/services/worker",
        "DELETE apps/deployments/redis",
        "DELETE eventing.knative.dev/brokers/default",
        "DELETE /namespaces/knative-jobs",
    ]
    assert deployed.names("secrets") == {"other-namespace"}
    assert "Left: Knative" in done.stdout


def test_nothing_goes_unasked(deployed: ApiServer, kind: Run) -> None:
    done = kind("delete")
    assert done.returncode == 1
    assert "the data, for good: every job in the volume of redis-data" in done.stdout
    assert "add --yes" in done.stderr
    assert deployed.changes == []


@pytest.mark.parametrize(("answer", "goes"), [("y", True), ("n", False), ("", False)])
def test_the_answer_decides(deployed: ApiServer, kind: Run, answer: str, goes: bool) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    try:
        done = kind("delete", stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == (0 if goes else 1), done.stderr
    assert bool(deployed.changes) == goes
    assert ("Nothing was removed." in done.stderr) != goes


def test_where_nothing_is_deployed_nothing_is_asked(cluster: ApiServer, kind: Run) -> None:
    done = kind("delete")
    assert done.returncode == 0
    assert done.stdout.startswith("There is no namespace knative-jobs in test")


def named(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, **more}


def test_the_question_names_what_cannot_be_made_again() -> None:
    asked = question("prod", Held([named("jobs")], [named("redis")], [named("api-tokens")], ""))
    assert "from prod the namespace knative-jobs" in asked
    assert "every job in the volume of redis" in asked
    assert "the Secrets api-tokens, which were made by hand" in asked
    assert "data" not in question("prod", Held([named("jobs")], [], [], ""))


def test_what_is_left_is_said_and_no_password_with_it() -> None:
    kept = named("pv-1", spec={"claimRef": {"namespace": "knative-jobs"}})
    other = named("pv-2", spec={"claimRef": {"namespace": "other"}})
    unbound = named("pv-3", spec={})
    held = Held([], [], [], "rediss://user:secret@redis.example.com:6379/0")
    told = remains(held, [kept, other, unbound])
    assert told[0] == "Left: the jobs, in the Redis at redis.example.com."
    assert told[1].endswith("kubectl delete persistentvolume pv-1")
    assert len(told) == 3
    assert "secret" not in "".join(told)
    for ours in ("redis://redis:6379/0", "redis+sentinel://redis-0.redis-nodes:26379,redis-1.redis-nodes:26379/jobs/0"):
        assert len(remains(Held([], [], [], ours), [])) == 1, "that Redis went with the namespace"
