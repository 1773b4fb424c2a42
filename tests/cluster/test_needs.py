"""What an overlay needs of a cluster."""

import re
from pathlib import Path

import pytest

from cluster import needs
from cluster.needs import Cluster, Reference
from tests.conftest import ROOT
from tests.manifests.rendered import REDIS_HA_IN_PRODUCTION, rendered, with_component

KINDS = {
    *(("", kind) for kind in ("Namespace", "ConfigMap", "Secret", "Service", "PersistentVolumeClaim")),
    ("apps", "Deployment"),
    ("networking.k8s.io", "NetworkPolicy"),
    ("serving.knative.dev", "Service"),
    *(("eventing.knative.dev", kind) for kind in ("Broker", "Trigger", "EventPolicy", "EventType")),
    ("sources.knative.dev", "PingSource"),
    ("sinks.knative.dev", "JobSink"),
}
VERSIONS = {
    "v1",
    "apps/v1",
    "networking.k8s.io/v1",
    "serving.knative.dev/v1",
    "eventing.knative.dev/v1",
    "eventing.knative.dev/v1alpha1",
    "eventing.knative.dev/v1beta2",
    "sources.knative.dev/v1",
    "sinks.knative.dev/v1alpha1",
}
KNATIVE = Cluster(KINDS, VERSIONS, {}, set())
"""A cluster with Knative as it is installed."""


@pytest.mark.parametrize("overlay", ["kind", "kind-long-jobs"])
def test_a_cluster_with_knative_has_all_that_these_overlays_need(overlay: str) -> None:
    assert needs.missing(rendered(overlay), KNATIVE) == []


@pytest.mark.parametrize(
    ("group", "product"), [("serving.knative.dev", "Knative Serving"), ("sinks.knative.dev", "Knative Eventing")]
)
def test_a_kind_that_is_unknown_is_named_with_the_product_that_has_it(group: str, product: str) -> None:
    lacking = KNATIVE._replace(kinds={kind for kind in KINDS if kind[0] != group})
    [line] = needs.missing(rendered("kind-long-jobs"), lacking)
    assert f"comes with {product}: ./scripts/kind install" in line


def test_a_version_that_is_not_served_is_missing_too() -> None:
    [line] = needs.missing(
        rendered("kind-long-jobs"), KNATIVE._replace(versions=VERSIONS - {"sinks.knative.dev/v1alpha1"})
    )
    assert "JobSink (sinks.knative.dev/v1alpha1)" in line


@pytest.mark.parametrize("state", ["", "disabled", "Enabled"])
def test_an_event_policy_needs_its_feature_and_the_line_says_how_it_is_switched_on(state: str, tmp_path: Path) -> None:
    cluster = KNATIVE._replace(features={"authentication-oidc": state} if state else {})
    lines = needs.missing(with_component("kind", "event-policy", tmp_path), cluster)
    if state == "Enabled":
        assert lines == []
        return
    [line] = lines
    [told] = re.findall(r"kubectl -n knative-eventing patch .*", line)
    first_lines = (ROOT / "knative/components/event-policy/kustomization.yaml").read_text()
    assert told in first_lines, "the same command"


def test_monitoring_needs_the_prometheus_operator(tmp_path: Path) -> None:
    lines = needs.missing(with_component("kind", "monitoring", tmp_path), KNATIVE)
    assert lines
    assert all("the Prometheus Operator: https://" in line for line in lines)


def test_secrets_that_no_manifest_brings_are_made_by_hand(tmp_path: Path) -> None:
    used = {(r.kind, r.name) for r in needs.references(with_component("production", "webhook", tmp_path))}
    assert used == {
        ("Secret", "redis"),
        ("Secret", "api-tokens"),
        ("Secret", "webhook"),
        ("ConfigMap", "kafka-broker-config"),
    }
    assert needs.references(rendered("kind")) == []


def test_a_secret_without_a_password_that_is_used_is_named_with_it() -> None:
    used = set(needs.references(rendered(REDIS_HA_IN_PRODUCTION)))
    kafka = ("internal.kafka.eventing.knative.dev", "ConsumerGroup")
    kinds = {*KINDS, kafka, ("apps", "StatefulSet"), ("policy", "PodDisruptionBudget")}
    versions = {*VERSIONS, "internal.kafka.eventing.knative.dev/v1alpha1", "policy/v1"}
    assert needs.missing(rendered(REDIS_HA_IN_PRODUCTION), Cluster(kinds, versions, {}, used)) == []
    before = {reference for reference in used if reference.key not in ("replica", "sentinel")}
    lines = needs.missing(rendered(REDIS_HA_IN_PRODUCTION), Cluster(kinds, versions, {}, before))
    has_no = "Secret redis in the namespace knative-jobs has no"
    assert [line.partition(":")[0] for line in lines] == [
        f"{has_no} replica, and StatefulSet redis uses it",
        f"{has_no} sentinel, and StatefulSet redis uses it",
    ]


def test_what_is_there_is_not_missing() -> None:
    used = set(needs.references(rendered("production")))
    assert Reference("ConfigMap", "knative-eventing", "kafka-broker-config", "Broker default") in used
    kafka = ("internal.kafka.eventing.knative.dev", "ConsumerGroup")
    cluster = Cluster({*KINDS, kafka}, {*VERSIONS, "internal.kafka.eventing.knative.dev/v1alpha1"}, {}, used)
    assert needs.missing(rendered("production"), cluster) == []
