"""The documents: their links lead somewhere, and they name all that there is."""

import dataclasses
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from knative_jobs.runtime.settings import Settings
from local import manifests
from tests.conftest import ROOT

HIDDEN = {".venv", ".bench", ".data", "node_modules"}
PAGES = sorted(path for path in ROOT.rglob("*.md") if not HIDDEN & set(path.relative_to(ROOT).parts))
MARKDOWN = MarkdownIt()
HANDLERS = sorted((ROOT / "functions").glob("*.py"))
LUA = ROOT / "functions" / "knative_jobs" / "store" / "lua"


def links(page: Path) -> list[str]:
    inline = [child for token in MARKDOWN.parse(page.read_text()) for child in token.children or []]
    found = [
        token.attrs.get("href") or token.attrs.get("src") for token in inline if token.type in ("link_open", "image")
    ]
    return [str(link) for link in found]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    tokens = MARKDOWN.parse(page.read_text())
    titles = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    dead = set()
    for link in links(page):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        to = (page.parent / path).resolve() if path else page
        if not to.exists() or (anchor and anchor not in anchors(to)):
            dead.add(link)
    assert not dead


def documented(page: str, names: set[str]) -> set[str]:
    text = (ROOT / "docs" / page).read_text()
    return {name for name in names if re.search(rf"`[^`]*{re.escape(name)}\b", text)}


def test_every_route_is_on_the_page_of_the_api() -> None:
    routes = {route for path in HANDLERS for route in re.findall(r'"(/\w+)"', path.read_text())}
    assert documented("api.md", routes) == routes


def test_every_setting_is_on_its_page() -> None:
    settings = {field.name.upper() for field in dataclasses.fields(Settings)}
    assert documented("settings.md", settings) == settings


def test_every_service_is_on_the_page_of_the_architecture() -> None:
    services = {service.name for service in manifests.services()}
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert {service for service in services if re.search(rf"\b{service}\b", text)} == services


def code(script: Path) -> str:
    return "\n".join(line.partition("--")[0] for line in script.read_text().splitlines())


def test_the_table_of_arrows_has_every_script_that_moves_a_job_and_no_other() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text().partition("| from | to | cause | script |")[2]
    rows = [row.split("|") for row in table.partition("\n\n")[0].splitlines()[2:]]
    changes = "move|finish|submit_again|attempt_failed|retry_one|cancel_one"
    writes = rf"\b({changes})\(|'status', 'submitted'|'DEL', (?!log_key)"
    moves = {path.stem for path in LUA.glob("*.lua") if re.search(writes, code(path))} - {"prelude"}
    assert {row[4].strip(" `") for row in rows} == moves


def test_every_script_is_in_the_list_of_scripts() -> None:
    text = (ROOT / "scripts" / "README.md").read_text()
    scripts = {path.name for path in (ROOT / "scripts").iterdir()} - {"README.md"}
    assert set(re.findall(r"^\| `([\w.]+)`", text, re.MULTILINE)) == scripts


def test_every_promise_names_a_test_that_is_there() -> None:
    written = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    known = set(re.findall(r"(?:def|class) (\w+)", written))
    named = re.findall(r"`(test_\w+|Test\w+)(\.\.\.)?`", (ROOT / "docs" / "guarantees.md").read_text())
    assert len(named) > 8
    assert not [name for name, more in named if not any(k.startswith(name) if more else k == name for k in known)]
