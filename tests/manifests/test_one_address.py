"""The component `one-address`: what a cluster gets, and that it fits the rest. tests/test_gateway.py has it running."""

import re
from urllib.parse import urlsplit

import pytest

from tests.conftest import ROOT
from tests.manifests.rendered import (
    ONE_ADDRESS,
    ONE_ADDRESS_IN_PRODUCTION,
    WITH_COMPONENT,
    Manifest,
    functions,
    of_kind,
    one,
    settings,
)
from tests.manifests.test_network import labels, namespaces, peers, selects

FOLDER = ROOT / "knative" / "components" / "one-address"
BOTH = pytest.mark.parametrize("overlay", [ONE_ADDRESS, ONE_ADDRESS_IN_PRODUCTION])


def gateway(overlay: str) -> Manifest:
    return functions(overlay)["api"]


@BOTH
def test_it_reads_its_configuration_and_starts_anew_when_that_changes(overlay: str) -> None:
    spec = gateway(overlay)["spec"]["template"]["spec"]
    [name] = [volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume]
    [config] = [m for m in of_kind(overlay, "ConfigMap") if m["metadata"]["name"] == name]
    assert re.fullmatch(r"gateway-\w+", name), "with a hash"
    assert config["data"] == {file: (FOLDER / file).read_text() for file in ("nginx.conf", "paths.conf")}
    assert settings(overlay)["PUBLIC_URL"] == "http://api.knative-jobs.127.0.0.1.sslip.io"


@BOTH
def test_it_calls_the_services_in_their_namespace(overlay: str) -> None:
    [namespace] = of_kind(overlay, "Namespace")
    within = f"{namespace['metadata']['name']}.svc.cluster.local"
    conf = (FOLDER / "nginx.conf").read_text()
    [address] = re.findall(r"proxy_pass (\S+);", conf)
    assert urlsplit(address).hostname == f"jobs.{within}"
    assert f"proxy_set_header Host $service.{within};" in conf


@BOTH
def test_it_has_no_secret_and_reaches_the_ingress_and_dns_alone(overlay: str) -> None:
    [container] = gateway(overlay)["spec"]["template"]["spec"]["containers"]
    assert not container.get("envFrom")
    assert not container.get("env")
    pod = labels(overlay)["Service api"]
    assert namespaces(overlay, "Egress", pod) == {"kourier-system": {8081}, "kube-system": {53}}
    assert all("namespaceSelector" in peer for peer, _ in peers(overlay, "Egress", pod))
    assert set(namespaces(overlay, "Ingress", pod)) == {"knative-serving", "kourier-system"}


def test_redis_does_not_let_it_in() -> None:
    redis = labels(ONE_ADDRESS)["Deployment redis"]
    incoming = peers(ONE_ADDRESS, "Ingress", redis)
    reached = {
        owner
        for owner, pod in labels(ONE_ADDRESS).items()
        if any(selects(peer["podSelector"], pod) for peer, _ in incoming)
    }
    assert reached == set(labels(ONE_ADDRESS)) - {"Deployment redis", "Service api"}


@BOTH
def test_nothing_else_changes(overlay: str) -> None:
    ours, _ = WITH_COMPONENT[overlay]
    assert set(functions(overlay)) == {*functions(ours), "api"}
    changed = settings(overlay).items() - settings(ours).items()
    assert {name for name, _ in changed} == {"PUBLIC_URL"}


def test_it_is_nothing_to_run_on_one_machine() -> None:
    from local import manifests

    assert "one-address" not in manifests.components()
    assert one(ONE_ADDRESS, "Service", "api", "serving.knative.dev")
