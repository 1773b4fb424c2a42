"""`scripts/kind deploy`, with the real kubectl on an API server that writes down what it is asked for."""

from pathlib import Path

import pytest

from cluster import ready
from tests.cluster.api_server import ApiServer, Kind, Object
from tests.cluster.conftest import Run
from tests.manifests.rendered import functions, rendered, with_component

pytestmark = pytest.mark.timeout(300)
OVERLAYS = "knative/overlays"
KAFKA = Kind("internal.kafka.eventing.knative.dev", "v1alpha1", "ConsumerGroup", "consumergroups")


def deployed(cluster: ApiServer) -> set[str]:
    return cluster.names("serving.knative.dev/services")


def test_an_overlay_is_applied_and_waited_for_and_the_next_one_removes_what_it_does_not_have(
    cluster: ApiServer, kind: Run
) -> None:
    done = kind("deploy")
    assert done.returncode == 0, done.stderr
    assert deployed(cluster) == functions("kind").keys()
    waited_for = [m for m in rendered("kind") if "knative.dev/" in m["apiVersion"] or m["kind"] == "Deployment"]
    waited_for = [m for m in waited_for if m["kind"] != "EventType"]  # it describes, and does nothing
    assert done.stdout.count("condition met") == len(waited_for)
    cluster.add("v1", "Secret", "by-hand")
    cluster.add("serving.knative.dev/v1", "Service", "submit", metadata={"labels": {"function.knative.dev": "true"}})
    ours = {"app.kubernetes.io/part-of": "knative-jobs"}
    cluster.add("v1", "Service", "jobs-00001", metadata={"labels": ours})

    cluster.changes.clear()
    done = kind("deploy", "--overlay", f"{OVERLAYS}/kind-long-jobs")
    assert done.returncode == 0, done.stderr
    removed = [change for change in cluster.changes if change.startswith("DELETE")]
    assert removed == ["DELETE serving.knative.dev/services/worker"], "and nothing that it did not apply itself"
    assert cluster.changes[-1] == removed[-1], "once the new ones are ready"

    cluster.changes.clear()
    assert kind("deploy").returncode == 0
    assert [c for c in cluster.changes if c.startswith("DELETE")] == ["DELETE sinks.knative.dev/jobsinks/worker"]
    assert "worker" in deployed(cluster)


def test_redis_with_replicas_takes_the_place_of_the_one_whose_volume_stays(
    cluster: ApiServer, kind: Run, tmp_path: Path
) -> None:
    assert kind("deploy").returncode == 0
    with_component("kind", "redis-ha", tmp_path)
    cluster.changes.clear()
    done = kind("deploy", "--overlay", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "statefulset.apps/redis condition met" in done.stdout, "it is waited for"
    removed = {change for change in cluster.changes if change.startswith("DELETE")}
    assert removed == {"DELETE apps/deployments/redis", "DELETE /services/redis"}
    assert cluster.names("persistentvolumeclaims") == {"redis"}
    assert cluster.names("policy/poddisruptionbudgets") == {"redis"}


def test_what_is_missing_is_all_named_and_nothing_is_applied(cluster: ApiServer, kind: Run) -> None:
    done = kind("deploy", "--overlay", f"{OVERLAYS}/production")
    assert done.returncode == 1
    first, *lines = done.stderr.splitlines()
    assert first == "Nothing was applied, for something is missing:"
    told = "\n".join(lines)
    assert "ConsumerGroup" in told
    assert "https://knative.dev/docs/eventing/brokers/broker-types/kafka-broker/" in told
    for missing in ("Secret redis", "Secret api-tokens", "ConfigMap kafka-broker-config"):
        assert f"- {missing} is not in the namespace" in told
    assert len(lines) == 4
    assert cluster.changes == []


def test_a_cluster_with_all_of_it_gets_the_production_overlay(cluster: ApiServer, kind: Run) -> None:
    cluster.kinds[KAFKA.group, KAFKA.version, KAFKA.plural] = KAFKA
    cluster.add("v1", "Namespace", "knative-jobs")
    cluster.add("v1", "ConfigMap", "kafka-broker-config", "knative-eventing")
    users = ("reader", "submitter", "worker", "sweeper")
    cluster.add("v1", "Secret", "redis", data=dict.fromkeys(users, "c2VjcmV0"))
    cluster.add("v1", "Secret", "api-tokens")
    done = kind("deploy", "--overlay", f"{OVERLAYS}/production")
    assert deployed(cluster) == functions("production").keys(), done.stderr
    assert "K_SINK of the settings says otherwise" in done.stderr, "the Broker here is no Kafka Broker"


def test_what_a_webhook_refuses_is_found_out_before_anything_is_applied(cluster: ApiServer, kind: Run) -> None:
    cluster.add("v1", "Namespace", "knative-jobs")

    def refuses(obj: Object) -> str | None:
        return "Immutable fields changed" if obj["kind"] == "Broker" else None

    cluster.refuses = refuses
    done = kind("deploy")
    assert done.returncode == 1
    assert "Nothing was applied, for the cluster would refuse this:" in done.stderr
    assert "Immutable fields changed" in done.stderr
    assert cluster.changes == []


def test_what_does_not_get_ready_is_named_with_its_reason() -> None:
    def service(name: str, **condition: str) -> Object:
        return {
            "kind": "Service",
            "metadata": {"name": name},
            "status": {"conditions": [{"type": "Ready", **condition}]},
        }

    jobs = service("jobs", status="False", reason="RevisionMissing", message="no image")
    told = ready.reasons([jobs, service("worker", status="True")], "Ready")
    assert told == ["", "Service jobs is not Ready:", "  Ready: RevisionMissing no image"]
