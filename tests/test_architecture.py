"""The rules of this repository's shape, and that what it has is documented."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from knative_jobs.scripts import _PARTS
from knative_jobs.settings import Settings
from tests.conftest import ROOT

FUNCTIONS = ROOT / "functions"
HANDLERS = sorted(FUNCTIONS.glob("*.py"))
PACKAGE = sorted((FUNCTIONS / "knative_jobs").glob("*.py"))
LUA = sorted((FUNCTIONS / "knative_jobs" / "lua").glob("*.lua"))
README = (ROOT / "README.md").read_text()
SERVICES = {path.stem for path in (ROOT / "knative" / "base" / "services").glob("*.yaml")}
ONLY_IMPORTERS = {
    "redis": {"scripts"},
    "hiredis": {"scripts"},
    "greenlet": {"waiting"},
    "cloudevents": {"cloudevent"},
    "httptools": {"client"},
    "opentelemetry": {"tracing"},
    "prometheus_client": {"metrics"},
}
# Lower may not import higher: handlers -> what answers and what a job's life is -> the store -> settings and errors.
BELOW_HTTP = {"store", "events", "cloudevent", "life", "attempt", "sweep", "submission", "dead_letters", "work", "auth"}
BELOW_HTTP |= {"settings", "errors", "scripts", "changes", "follow", "waiting", "tracing", "logs", "endings", "client"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def top(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", HANDLERS + PACKAGE, ids=lambda path: path.stem)
def test_a_module_imports_only_what_is_its_to_know(path: Path) -> None:
    imported = imports(path)
    for library, owners in ONLY_IMPORTERS.items():
        assert library not in top(imported) or path.stem in owners, f"{library} is known to {owners} alone"
    assert not top(imported) & {handler.stem for handler in HANDLERS}, "no handler imports another"
    if path in PACKAGE and path.stem in BELOW_HTTP:
        assert not {"knative_jobs.http", "flask"} & imported
    if path.stem != "settings":
        assert not re.search(r"os\.(environ|getenv)\b", path.read_text()), "settings alone reads the environment"


@pytest.mark.parametrize("path", HANDLERS, ids=lambda path: path.stem)
def test_a_handler_is_one_screen_with_one_function_of_its_name(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert [node.name for node in tree.body if isinstance(node, ast.FunctionDef)] == [path.stem]
    assert len(path.read_text().splitlines()) <= 40


@pytest.mark.parametrize("path", LUA, ids=lambda path: path.stem)
def test_a_script_states_its_arguments_reply_and_guarantee_and_searches_no_keyspace(path: Path) -> None:
    text = path.read_text()
    if path.stem not in ("life", *_PARTS):
        assert re.search(r"^-- Reply ", text, re.MULTILINE)
        assert re.search(r"^-- Guarantee ", text, re.MULTILINE)
        assert ("ARGV" in text) == bool(re.search(r"^-- ARGV ", text, re.MULTILINE))
    assert not re.search(r"'(KEYS|SCAN|FLUSH\w+|RANDOMKEY)'", text, re.IGNORECASE)


def test_every_function_has_a_service_and_every_service_a_function() -> None:
    targets = set()
    for service in SERVICES:
        manifest = yaml.safe_load((ROOT / "knative" / "base" / "services" / f"{service}.yaml").read_text())
        (container,) = manifest["spec"]["template"]["spec"]["containers"]
        env = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
        assert env["FUNCTION_SOURCE"] == f"functions/{env['FUNCTION_TARGET']}.py"
        assert manifest["metadata"]["name"] == service == env["FUNCTION_TARGET"].replace("_", "-")
        targets.add(env["FUNCTION_TARGET"])
    assert targets == {path.stem for path in HANDLERS}


def test_every_route_setting_and_service_is_in_the_readme() -> None:
    routes = {route for path in HANDLERS for route in re.findall(r'"(/\w+)"', path.read_text())}
    settings = {field.name.upper() for field in dataclasses.fields(Settings)}
    missing = {name for name in routes | settings | SERVICES if not re.search(rf"`[^`]*{name}\b", README)}
    assert not missing
