"""What kustomize makes of the base and of each overlay, as dicts."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from tests.conftest import ROOT

Manifest = dict[str, Any]
KNATIVE = ROOT / "knative"
OVERLAYS = sorted(folder.name for folder in (KNATIVE / "overlays").iterdir())
WEBHOOK = "kind with the webhook"
CHAIN, RECURRING = "kind with the chain", "kind with recurring"
ONE_ADDRESS, ONE_ADDRESS_IN_PRODUCTION = "kind with one address", "production with one address"
REDIS_HA, REDIS_HA_IN_PRODUCTION = "kind with redis-ha", "production with redis-ha"
WITH_COMPONENT = {
    WEBHOOK: ("kind", "webhook"),
    CHAIN: ("kind", "chain"),
    RECURRING: ("kind", "recurring"),
    ONE_ADDRESS: ("kind", "one-address"),
    ONE_ADDRESS_IN_PRODUCTION: ("production", "one-address"),
    REDIS_HA: ("kind", "redis-ha"),
    REDIS_HA_IN_PRODUCTION: ("production", "redis-ha"),
}
"""What somebody's own overlay is who takes that component into one of ours."""


def lacking(what: str) -> NoReturn:
    """Skip a check that cannot be made here; in CI, where all is there, fail."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what, allow_module_level=True)


@cache
def rendered(overlay: str) -> list[Manifest]:
    if overlay not in WITH_COMPONENT:
        return build(KNATIVE / "base" if overlay == "base" else KNATIVE / "overlays" / overlay)
    ours, component = WITH_COMPONENT[overlay]
    with tempfile.TemporaryDirectory() as own:
        shutil.copytree(KNATIVE / "overlays" / ours, own, dirs_exist_ok=True)
        file = Path(own) / "kustomization.yaml"
        parts = yaml.safe_load(file.read_text().replace("../..", os.path.relpath(KNATIVE, Path(own).resolve())))
        at = os.path.relpath(KNATIVE / "components" / component, Path(own).resolve())
        parts["components"] = [*parts.get("components", []), at]
        if overlay == REDIS_HA_IN_PRODUCTION:
            _without_redis_elsewhere(parts)
        file.write_text(yaml.safe_dump(parts))
        return build(Path(own))


def _without_redis_elsewhere(parts: Manifest) -> None:
    """Leave out what components/redis-ha says is to be left out of the production overlay."""
    parts["patches"] = [
        patch
        for patch in parts["patches"]
        if patch != {"path": "network.yaml"} and patch["target"] != {"name": "redis"}
    ]
    [settings] = parts["configMapGenerator"]
    settings["literals"] = [line for line in settings["literals"] if not line.startswith("REDIS_URL=")]


def with_component(overlay: str, component: str, folder: Path, *others: str) -> list[Manifest]:
    """What an overlay in this folder gets that adds components to one of ours; a kind is named as `kinds/NAME`."""
    within = Path(os.path.relpath(KNATIVE, folder.resolve()))
    components = [str(within / (name if "/" in name else f"components/{name}")) for name in (component, *others)]
    parts = {"resources": [str(within / "overlays" / overlay)], "components": components}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({"namespace": "knative-jobs", **parts}))
    return build(folder)


def build(folder: Path) -> list[Manifest]:
    if not shutil.which("kubectl"):
        lacking("not run: kubectl is missing")
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(overlay: str, kind: str, group: str = "") -> list[Manifest]:
    return [m for m in rendered(overlay) if m["kind"] == kind and m["apiVersion"].startswith(group)]


def one(overlay: str, kind: str, name: str, group: str = "") -> Manifest:
    [found] = [m for m in of_kind(overlay, kind, group) if m["metadata"]["name"] == name]
    return found


def functions(overlay: str) -> dict[str, Manifest]:
    """The Knative Services, by name."""
    return {m["metadata"]["name"]: m for m in of_kind(overlay, "Service", "serving.knative.dev")}


def environment(manifest: Manifest) -> dict[str, str]:
    """The environment that a Knative Service states for its container."""
    [container] = manifest["spec"]["template"]["spec"]["containers"]
    return {e["name"]: e["value"] for e in container.get("env", []) if "value" in e}


def is_worker(manifest: Manifest) -> bool:
    """Whether it does jobs, as a Knative Service or a JobSink."""
    is_subscriber = manifest["kind"] == "JobSink" or manifest["apiVersion"].startswith("serving.knative.dev")
    return is_subscriber and manifest["metadata"]["labels"].get("app.kubernetes.io/component") == "worker"


def workers(overlay: str) -> list[Manifest]:
    """What does jobs there."""
    return [manifest for manifest in rendered(overlay) if is_worker(manifest)]


def pod_of(manifest: Manifest) -> Manifest:
    """The pod that a Knative Service, a Deployment or a JobSink declares."""
    spec = manifest["spec"]["job"]["spec"] if manifest["kind"] == "JobSink" else manifest["spec"]
    return dict(spec["template"]["spec"])


def reads(manifest: Manifest, manifests: list[Manifest]) -> dict[str, str]:
    """The environment of its container: what it states itself goes first, then the last of its ConfigMaps."""
    data = {m["metadata"]["name"]: m["data"] for m in manifests if m["kind"] == "ConfigMap"}
    container, *_ = pod_of(manifest)["containers"]
    read: dict[str, str] = {}
    for entry in container["envFrom"]:
        if "configMapRef" in entry:
            read |= data[entry["configMapRef"]["name"]]
    return read | {entry["name"]: entry["value"] for entry in container.get("env", []) if "value" in entry}


def target(service: Manifest) -> str:
    """The name of the function that a Knative Service serves."""
    return environment(service).get("FUNCTION_TARGET", str(service["metadata"]["name"]).replace("-", "_"))


def source(service: Manifest) -> Path:
    """The file with that function."""
    return ROOT / environment(service).get("FUNCTION_SOURCE", f"functions/{target(service)}.py")


def settings(overlay: str) -> dict[str, str]:
    """The data of the one ConfigMap that all functions read."""
    [found] = [m for m in of_kind(overlay, "ConfigMap") if m["metadata"]["name"].startswith("settings-")]
    return dict(found["data"])


def pods(overlay: str) -> Iterator[tuple[str, Manifest]]:
    """Every pod template, with the name of what it belongs to."""
    for manifest in rendered(overlay):
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        kinds = ("JobSink", "Deployment", "StatefulSet")
        if manifest["kind"] in kinds or manifest["apiVersion"].startswith("serving.knative.dev"):
            yield name, pod_of(manifest)
