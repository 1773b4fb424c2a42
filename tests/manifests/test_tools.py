"""The files for other tools: func.yaml, compose.yaml, the versions, and the scripts."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.conftest import ROOT
from tests.manifests.rendered import environment, functions, lacking, one, settings

SHELL_SCRIPTS = [
    path
    for folder in ("scripts", ".ci", "knative/base/redis", "knative/components/redis-ha")
    for path in sorted((ROOT / folder).iterdir())
    if path.is_file() and re.match(rb"#!.*sh\n", path.read_bytes())
]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
IN_COMPOSE = {name: s for name, s in COMPOSE["services"].items() if "FUNCTION_TARGET" in s.get("environment", {})}
PRIVATE = ("worker", "sweeper", "dead-letter", "job-requests", "bulk-operations")
PUBLIC = {name for name in functions("base") if name not in PRIVATE}


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    done = subprocess.run([Path(sys.executable).with_name("shellcheck"), script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("step", ["up", "down", "install", "build", "deploy", "delete", "test"])
def test_kind_names_the_tools_that_are_missing(step: str, tmp_path: Path) -> None:
    (tmp_path / "python3").symlink_to(sys.executable)
    script = ROOT / "scripts" / "kind"
    done = subprocess.run(
        ["/usr/bin/env", "-i", f"PATH={tmp_path}", script, step], capture_output=True, text=True, check=False
    )
    tools = ["kubectl"] if step in ("deploy", "delete", "test") else ["docker", "kind", "kubectl"]
    assert done.returncode == 1
    assert done.stdout == "", "nothing was begun"
    assert re.findall(r"^(\w+) is missing: https://", done.stderr, re.MULTILINE) == tools


def test_what_kind_installs_is_pinned() -> None:
    lines = (ROOT / "scripts" / "versions.env").read_text().splitlines()
    versions = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert re.search(r":v[\d.]+@sha256:[0-9a-f]{64}$", versions.pop("KIND_NODE_IMAGE"))
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in versions.values())


def test_kinds_port_reaches_kouriers_service() -> None:
    cluster = yaml.safe_load((ROOT / "knative/cluster/kind.yaml").read_text())
    service = yaml.safe_load((ROOT / "knative/cluster/kourier-nodeport.yaml").read_text())
    [mapping] = cluster["nodes"][0]["extraPortMappings"]
    assert mapping["containerPort"] == service["spec"]["ports"][0]["nodePort"]
    assert mapping["hostPort"] == 80, "scripts/kind puts PORT in its place"


def func() -> dict[str, Any]:
    # With its date as text, which it is in JSON.
    return dict(yaml.load((ROOT / "func.yaml").read_text(), yaml.BaseLoader))


def test_func_yaml_fits_its_schema() -> None:
    schema = os.environ.get("FUNC_SCHEMA")
    if not schema:
        lacking("not run: FUNC_SCHEMA names no file with the schema of func.yaml")
    document = yaml.safe_load((ROOT / "func.yaml").read_text()) | {"created": func()["created"]}
    jsonschema.validate(document, json.loads(Path(schema).read_text()))
    assert document["specVersion"] == "0.36.0"


def test_func_deploys_the_function_that_kustomize_deploys() -> None:
    env = {e["name"]: e["value"] for e in func()["run"]["envs"]}
    assert env.pop("REDIS_PASSWORD") == "{{ secret:redis:submitter }}"
    jobs = functions("kind")["jobs"]
    assert env.pop("FUNCTION_TARGET") == "jobs", "its Service has another name"
    assert env.items() <= (environment(jobs) | settings("kind")).items()
    [container] = jobs["spec"]["template"]["spec"]["containers"]
    assert func()["image"] == container["image"]
    assert func()["deploy"]["healthEndpoints"]["readiness"] == container["readinessProbe"]["httpGet"]["path"]


def test_compose_runs_every_function_that_is_called_without_a_broker() -> None:
    assert {s["environment"]["FUNCTION_TARGET"].replace("_", "-") for s in IN_COMPOSE.values()} == {
        *PUBLIC,
        "worker",
        "bulk-operations",
        "sweeper",
    }
    for name, service in IN_COMPOSE.items():
        assert service["environment"]["FUNCTION_TARGET"] == name


def test_composes_redis_is_that_of_the_cluster() -> None:
    [container] = one("base", "Deployment", "redis")["spec"]["template"]["spec"]["containers"]
    redis = COMPOSE["services"]["redis"]
    assert redis["image"] == container["image"]
    assert " ".join(redis["command"]) in " ".join(container["args"])
