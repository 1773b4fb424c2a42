"""What the terminal shows: tables for people, JSON and YAML for programs."""

import json
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import click
import yaml
from rich.console import Console
from rich.table import Table

STYLES = {"complete": "green", "failed": "red", "cancelled": "yellow", "in progress": "cyan"}
output_option = click.option(
    "-o", "--output", "form", type=click.Choice(["table", "json", "yaml"]), default="table", help="How to show it."
)
# What is piped to another program is not cut to the width of a terminal.
console = Console(width=None if sys.stdout.isatty() else 1000)
messages = Console(stderr=True)


def show(found: Any, form: str, table: Table) -> None:
    """Show what the API answered, in the form that was asked for."""
    if form == "json":
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif form == "yaml":
        click.echo(yaml.safe_dump(found, sort_keys=False, allow_unicode=True), nl=False)
    else:
        console.print(table)


def of_jobs(jobs: Iterable[Mapping[str, Any]]) -> Table:
    """Return a table of jobs."""
    table = _table("ID", "KIND", "KEY", "STATUS", "DONE", "AGE")
    for job in jobs:
        progress = f"{job['progress']:.0%}" if "progress" in job else ""
        kind, key, status = job.get("kind", "default"), job.get("key", ""), job["status"]
        table.add_row(job["id"], kind, key, status, progress, _age(job["submitted-at"]), style=STYLES.get(status))
    return table


def of_record(job: Mapping[str, Any]) -> Table:
    """Return a table of the fields of one job."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in {"id": job["id"], "status": job["status"], **job}.items():
        text = _time(value) if name.endswith("-at") else value if isinstance(value, str) else json.dumps(value)
        table.add_row(name, text, style=STYLES.get(value) if name == "status" else None)
    return table


def of_counts(counts: Mapping[str, Mapping[str, int]]) -> Table:
    """Return a table of how many jobs of each kind have each status."""
    statuses = list(next(iter(counts.values()), {}))
    table = _table("KIND", *map(str.upper, statuses))
    for kind, of_kind in counts.items():
        table.add_row(kind, *(str(of_kind[status]) for status in statuses))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=heading in ("ID", "STATUS", "AGE"))
    return table


def _age(seconds: float) -> str:
    """Return for how long something has been there, as kubectl does."""
    age = max(0, time.time() - seconds)
    for unit, of_unit in (("d", 86400), ("h", 3600), ("m", 60)):
        if age >= 2 * of_unit:
            return f"{age // of_unit:.0f}{unit}"
    return f"{age:.0f}s"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
