"""The rules of this repository's shape."""

import ast
import re
from pathlib import Path

import pytest

from knative_jobs.store.lua_scripts import SHARED
from local import manifests
from tests.conftest import ROOT

FUNCTIONS = ROOT / "functions"
HANDLERS = sorted(FUNCTIONS.glob("*.py"))
PACKAGE = sorted((FUNCTIONS / "knative_jobs").rglob("*.py"))
LUA = sorted((FUNCTIONS / "knative_jobs" / "store" / "lua").glob("*.lua"))
SERVICES = {service.name for service in manifests.services()}


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


@pytest.mark.parametrize("path", HANDLERS, ids=lambda path: path.stem)
def test_no_handler_imports_another_or_a_driver(path: Path) -> None:
    allowed = {"flask", "functions_framework", "importlib", "knative_jobs"}
    assert top(imports(path)) <= allowed


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: path.stem)
def test_only_settings_reads_the_environment(path: Path) -> None:
    reads = re.search(r"os\.(environ|getenv)\b", path.read_text())
    assert not reads or path.stem == "settings"


@pytest.mark.parametrize("path", HANDLERS, ids=lambda path: path.stem)
def test_a_handler_is_one_screen_with_one_function_of_its_name(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert [node.name for node in tree.body if isinstance(node, ast.FunctionDef)] == [path.stem]
    assert len(path.read_text().splitlines()) <= 40


@pytest.mark.parametrize("path", LUA, ids=lambda path: path.stem)
def test_a_script_states_its_arguments_reply_and_guarantee_and_searches_no_keyspace(path: Path) -> None:
    text = path.read_text()
    if path.stem not in SHARED:
        assert re.search(r"^-- Reply ", text, re.MULTILINE)
        assert re.search(r"^-- Guarantee ", text, re.MULTILINE)
        assert ("ARGV" in text) == bool(re.search(r"^-- ARGV ", text, re.MULTILINE))
    assert not re.search(r"'(KEYS|SCAN|FLUSH\w+|RANDOMKEY)'", text, re.IGNORECASE)


def test_every_function_has_a_service_and_every_service_a_function() -> None:
    all_of_them = {"api"}  # in the place of a Service each
    assert {service.replace("-", "_") for service in SERVICES} == {path.stem for path in HANDLERS} - all_of_them
