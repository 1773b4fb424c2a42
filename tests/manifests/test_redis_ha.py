"""The component `redis-ha`: what a cluster gets, and that it fits the rest. tests/test_redis_ha.py has it running."""

import re

import pytest

from knative_jobs.runtime import redis_url
from tests.conftest import ROOT
from tests.manifests.rendered import (
    REDIS_HA,
    REDIS_HA_IN_PRODUCTION,
    WITH_COMPONENT,
    Manifest,
    functions,
    of_kind,
    one,
    rendered,
    settings,
)
from tests.manifests.test_network import ANY_OTHER_POD, labels, namespaces, peers, selects

FOLDER = ROOT / "knative" / "components" / "redis-ha"
BOTH = pytest.mark.parametrize("overlay", [REDIS_HA, REDIS_HA_IN_PRODUCTION])
OURS = "StatefulSet redis"


def redis(overlay: str) -> Manifest:
    return one(overlay, "StatefulSet", "redis")


def containers(overlay: str) -> dict[str, Manifest]:
    return {c["name"]: c for c in redis(overlay)["spec"]["template"]["spec"]["containers"]}


@BOTH
def test_it_takes_the_place_of_the_one_redis_and_has_its_image_options_and_users(overlay: str) -> None:
    assert not [
        m for m in rendered(overlay) if m["metadata"]["name"] == "redis" and m["kind"] in ("Deployment", "Service")
    ]
    assert not of_kind(overlay, "PersistentVolumeClaim"), "each pod has a volume of its own"
    before = one("base", "Deployment", "redis")["spec"]["template"]["spec"]
    [alone] = before["containers"]
    server, sentinel = containers(overlay)["redis"], containers(overlay)["sentinel"]
    assert server["image"] == sentinel["image"] == alone["image"]
    for same in ("args", "resources", "readinessProbe", "securityContext"):
        assert server[same] == alone[same]
    assert redis(overlay)["spec"]["template"]["spec"]["securityContext"] == before["securityContext"]
    users = next(v for v in redis(overlay)["spec"]["template"]["spec"]["volumes"] if v["name"] == "redis")
    assert users in before["volumes"], "the same ConfigMap"


@BOTH
def test_the_scripts_that_are_started_are_there_and_a_change_of_them_starts_the_pods_anew(overlay: str) -> None:
    volumes = {v["name"]: v for v in redis(overlay)["spec"]["template"]["spec"]["volumes"]}
    name = volumes["redis-ha"]["configMap"]["name"]
    assert re.fullmatch(r"redis-ha-\w+", name), "with a hash"
    scripts = one(overlay, "ConfigMap", name)["data"]
    for container in containers(overlay).values():
        shell, path = container["command"]
        assert shell == "sh"
        assert path.removeprefix("/redis-ha/") in scripts
        assert {"name": "redis-ha", "mountPath": "/redis-ha", "readOnly": True} in container["volumeMounts"]


@BOTH
def test_every_pod_has_the_name_that_the_scripts_and_functions_know_it_by(overlay: str) -> None:
    spec = redis(overlay)["spec"]
    names = {f"{redis(overlay)['metadata']['name']}-{n}.{spec['serviceName']}" for n in range(spec["replicas"])}
    service = one(overlay, "Service", spec["serviceName"])["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"] is True
    assert selects({"matchLabels": service["selector"]}, labels(overlay)[OURS])
    url = redis_url.parse(settings(overlay)["REDIS_URL"])
    assert set(url.nodes) == {(name, 26379) for name in names}
    assert settings(overlay)["REDIS_WAIT_REPLICAS"] == "1"
    server, sentinel = ((FOLDER / script).read_text() for script in ("server.sh", "sentinel.sh"))
    assert set(re.search(r"PEERS:=([^}]+)", server)[1].split()) == names
    assert re.search(r"FIRST:=([^}]+)", sentinel)[1] in names
    assert f"sentinel monitor {url.service} " in sentinel
    assert f"sentinel master {url.service} " in server


@BOTH
def test_no_two_pods_go_at_once_and_they_are_on_different_nodes_where_there_are_so_many(overlay: str) -> None:
    [budget] = of_kind(overlay, "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    assert selects(budget["spec"]["selector"], labels(overlay)[OURS])
    affinity = redis(overlay)["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"]
    [wish] = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    assert wish["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    assert selects(wish["podAffinityTerm"]["labelSelector"], labels(overlay)[OURS])


@BOTH
def test_functions_reach_redis_and_sentinels_which_call_each_other_and_nobody_else(overlay: str) -> None:
    ours, ports = labels(overlay)[OURS], {6379, 26379}
    assert namespaces(overlay, "Egress", ours) == {"kube-system": {53}}
    incoming = [(peer, to) for peer, to in peers(overlay, "Ingress", ours) if to == ports]
    assert len(incoming) == len(peers(overlay, "Ingress", ours))
    for owner, pod in labels(overlay).items():
        reached = any(selects(peer["podSelector"], pod) for peer, _ in incoming)
        lets_go = any(
            "podSelector" in peer and selects(peer["podSelector"], ours) and to == ports
            for peer, to in peers(overlay, "Egress", pod)
        )
        assert reached == lets_go == True, owner  # noqa: E712
    assert not any(selects(peer["podSelector"], ANY_OTHER_POD) for peer, _ in incoming)
    others = [peer for peer, _ in peers(overlay, "Egress", ours) if "podSelector" in peer]
    assert not any(selects(peer["podSelector"], ANY_OTHER_POD) for peer in others)


@BOTH
def test_each_container_gets_its_own_password_from_the_secret(overlay: str) -> None:
    for name, user in (("redis", "replica"), ("sentinel", "sentinel")):
        [password] = containers(overlay)[name]["env"]
        assert password["valueFrom"] == {"secretKeyRef": {"name": "redis", "key": user}}


@BOTH
def test_nothing_else_changes(overlay: str) -> None:
    ours, _ = WITH_COMPONENT[overlay]
    assert set(functions(overlay)) == set(functions(ours))
    changed = settings(overlay).items() - settings(ours).items()
    assert {name for name, _ in changed} == {"REDIS_URL", "REDIS_WAIT_REPLICAS"}
