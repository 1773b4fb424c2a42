"""Who may talk to whom in a cluster: what the NetworkPolicies and the EventPolicy come to."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest

from tests.conftest import ROOT
from tests.manifests.rendered import (
    OVERLAYS,
    WEBHOOK,
    Manifest,
    functions,
    of_kind,
    one,
    pods,
    rendered,
    settings,
    with_component,
    workers,
)
from tests.manifests.test_schemas import KUBERNETES

ALL = pytest.mark.parametrize("overlay", ["base", *OVERLAYS])
CHANGING = {f"{what}-{which}" for what in ("cancel", "retry") for which in ("job", "jobs")}
EMITTERS = {"jobs", "job-requests", "bulk-operations", "sweeper"} | CHANGING
"""And the workers of every kind."""
ANY_OTHER_POD = {"app": "another"}
QUEUE_PROXY = {8012, 8013, 8112}


def labels(overlay: str) -> dict[str, dict[str, str]]:
    """The labels of each pod, by what it belongs to; Knative adds the name of its Service."""
    found = {}
    for manifest in rendered(overlay):
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        if manifest["kind"] == "JobSink":
            found[name] = manifest["spec"]["job"]["spec"]["template"]["metadata"]["labels"]
        elif manifest["kind"] in ("Deployment", "StatefulSet"):
            found[name] = manifest["spec"]["template"]["metadata"]["labels"]
        elif manifest["apiVersion"].startswith("serving.knative.dev"):
            own = manifest["spec"]["template"]["metadata"].get("labels", {})
            found[name] = own | {"serving.knative.dev/service": manifest["metadata"]["name"]}
    assert found.keys() == {owner for owner, _ in pods(overlay)}
    return found


def selects(selector: dict[str, Any], pod: dict[str, str]) -> bool:
    """See https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors."""
    test = {
        "Exists": lambda e: e["key"] in pod,
        "In": lambda e: pod.get(e["key"]) in e["values"],
        "NotIn": lambda e: pod.get(e["key"]) not in e["values"],
    }
    return selector.get("matchLabels", {}).items() <= pod.items() and all(
        test[e["operator"]](e) for e in selector.get("matchExpressions", [])
    )


def peers(overlay: str, direction: str, pod: dict[str, str]) -> list[tuple[dict[str, Any], set[int]]]:
    """With whom this pod may talk, and on which ports."""
    side = "from" if direction == "Ingress" else "to"
    return [
        (peer, {port["port"] for port in rule["ports"]} if "ports" in rule else set())
        for policy in of_kind(overlay, "NetworkPolicy")
        if direction in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], pod)
        for rule in policy["spec"].get(direction.lower(), [])
        for peer in rule[side]
    ]


def namespaces(overlay: str, direction: str, pod: dict[str, str]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for peer, ports in peers(overlay, direction, pod):
        if "namespaceSelector" in peer:
            name = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
            found[name] = found.get(name, set()) | ports
    return found


@ALL
def test_what_no_policy_allows_is_forbidden(overlay: str) -> None:
    spec = one(overlay, "NetworkPolicy", "nobody")["spec"]
    assert spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize("overlay", ["base", "kind", "kind-long-jobs"])
def test_redis_is_reached_by_every_function_and_by_nothing_else(overlay: str) -> None:
    redis = labels(overlay)["Deployment redis"]
    assert not peers(overlay, "Egress", redis), "it calls nobody"
    incoming = peers(overlay, "Ingress", redis)
    for owner, pod in labels(overlay).items():
        reached = any(selects(peer["podSelector"], pod) and ports == {6379} for peer, ports in incoming)
        lets_go = any(
            "podSelector" in peer and selects(peer["podSelector"], redis) for peer, _ in peers(overlay, "Egress", pod)
        )
        assert reached == lets_go == (owner != "Deployment redis"), owner
    assert not any(selects(peer["podSelector"], ANY_OTHER_POD) for peer, _ in incoming)


@ALL
def test_functions_reach_the_broker_dns_and_redis_alone(overlay: str) -> None:
    for owner, pod in labels(overlay).items():
        if owner != "Deployment redis":
            expected = {"knative-eventing": {8080, 8443}, "kube-system": {53}}
            assert namespaces(overlay, "Egress", pod) == expected, owner
            others = [(peer, ports) for peer, ports in peers(overlay, "Egress", pod) if "namespaceSelector" not in peer]
            [(peer, ports)] = others
            assert ports == {6379}
            assert ("ipBlock" in peer) == (overlay == "production"), owner


@ALL
def test_functions_are_reached_through_knative_alone(overlay: str) -> None:
    for name in functions(overlay):
        pod = labels(overlay)[f"Service {name}"]
        expected = {"knative-serving": {*QUEUE_PROXY, 8022, 9090, 9091}, "kourier-system": QUEUE_PROXY}
        assert namespaces(overlay, "Ingress", pod) == expected
        assert all("podSelector" not in peer for peer, _ in peers(overlay, "Ingress", pod)), "nor by each other"


def test_work_reaches_the_internet_with_its_component_and_no_private_address() -> None:
    import ipaddress

    import yaml

    component = ROOT / "knative" / "components" / "internet"
    policy: Manifest = yaml.safe_load((component / "policy.yaml").read_text())
    chosen = {
        (overlay, owner)
        for overlay in OVERLAYS
        for owner, pod in labels(overlay).items()
        if selects(policy["spec"]["podSelector"], pod)
    }
    of_all_kinds = {
        (overlay, f"{worker['kind']} {worker['metadata']['name']}")
        for overlay in OVERLAYS
        for worker in workers(overlay)
    }
    assert chosen == of_all_kinds
    [rule] = policy["spec"]["egress"]
    [peer] = rule["to"]
    closed = [ipaddress.ip_network(block) for block in peer["ipBlock"]["except"]]
    of_the_webhook = one(WEBHOOK, "NetworkPolicy", "webhook")["spec"]
    assert of_the_webhook["egress"] == policy["spec"]["egress"]
    of_it = {owner for owner, pod in labels(WEBHOOK).items() if selects(of_the_webhook["podSelector"], pod)}
    assert of_it == {"Service webhook"}
    for address in ("10.96.0.1", "172.17.0.1", "192.168.1.1", "169.254.169.254", "127.0.0.1", "100.100.100.200"):
        assert any(ipaddress.ip_address(address) in block for block in closed)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_functions_reach_the_collector_with_the_component_that_names_it(overlay: str, tmp_path: Path) -> None:
    manifests = with_component(overlay, "tracing", tmp_path)
    [given] = [m["data"] for m in manifests if m["kind"] == "ConfigMap" and "K_SINK" in m["data"]]
    changed = dict(given.items() - settings(overlay).items())
    assert changed.keys() == {"OTEL_EXPORTER_OTLP_ENDPOINT"}
    address = urlsplit(changed["OTEL_EXPORTER_OTLP_ENDPOINT"])
    _, namespace, *_ = str(address.hostname).split(".")
    [policy] = [m for m in manifests if m["metadata"]["name"] == "traces"]
    kubernetes_validate.validate(policy, KUBERNETES, strict=True)
    assert policy["spec"]["policyTypes"] == ["Egress"]
    [rule] = policy["spec"]["egress"]
    assert rule["ports"] == [{"port": address.port}]
    assert rule["to"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}]
    for owner, pod in labels(overlay).items():
        function = owner not in ("Deployment redis", "Deployment debug")
        assert selects(policy["spec"]["podSelector"], pod) == function, owner


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_the_functions_that_emit_may_put_events_of_jobs_on_the_broker(overlay: str, tmp_path: Path) -> None:
    manifests = with_component(overlay, "event-policy", tmp_path)
    [policy] = [m for m in manifests if m["kind"] == "EventPolicy"]
    [broker] = [m for m in manifests if m["kind"] == "Broker"]
    assert [target["ref"]["name"] for target in policy["spec"]["to"]] == [broker["metadata"]["name"]]
    namespace = broker["metadata"]["namespace"]
    assert policy["spec"]["from"] == [{"sub": f"system:serviceaccount:{namespace}:default"}]
    [only] = policy["spec"]["filters"]
    for trigger in of_kind(overlay, "Trigger"):
        assert trigger["spec"]["filter"]["attributes"]["type"].startswith(only["prefix"]["type"])
    [token_file] = [m["data"]["K_SINK_TOKEN_FILE"] for m in manifests if "K_SINK" in m.get("data", {})]
    with_token = {}
    for manifest in manifests:
        if manifest["kind"] == "JobSink":
            spec = manifest["spec"]["job"]["spec"]["template"]["spec"]
        elif manifest["apiVersion"].startswith("serving.knative.dev"):
            spec = manifest["spec"]["template"]["spec"]
        else:
            continue
        for volume in spec["volumes"]:
            for source in volume.get("projected", {}).get("sources", []):
                owner = manifest["kind"], manifest["metadata"]["name"]
                with_token[owner] = source["serviceAccountToken"]["audience"]
                [mount] = [m for m in spec["containers"][0]["volumeMounts"] if m["name"] == volume["name"]]
                assert f"{mount['mountPath']}/{source['serviceAccountToken']['path']}" == token_file
    emitters = {("Service", name) for name in EMITTERS}
    emitters |= {(worker["kind"], worker["metadata"]["name"]) for worker in workers(overlay)}
    assert with_token == dict.fromkeys(emitters, f"eventing.knative.dev/broker/{namespace}/default")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_overlay_asks_for_a_feature_that_knative_eventing_has_off(overlay: str) -> None:
    assert not of_kind(overlay, "EventPolicy")
    assert settings(overlay)["K_SINK_TOKEN_FILE"] == ""
