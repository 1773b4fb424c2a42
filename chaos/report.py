"""The ledger for people, as a table, and for programs, as JSON."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from chaos.faults import FAILOVERS, Fault
from chaos.ledger import Ledger

EXAMPLES = 5
"""So many of the entries of one kind are printed; the JSON has them all."""


def show(console: Console, ledger: Ledger, done: Counter[str]) -> None:
    """Print the ledger."""
    table = Table("", "", show_header=False)
    table.columns[1].justify = "right"
    sections = {
        "jobs": ledger.counts,
        "attempts begun, by their number": ledger.attempts_begun,
        "jobs with so many effects": ledger.effects_per_job,
        "answers": ledger.statuses,
        "faults": dict(sorted(done.items())) | {"kills": kills(done)} | failovers(done),
        "must be 0": {kind: len(found) for kind, found in ledger.wrong.items()},
        "lost, as this Redis may": {kind: len(found) for kind, found in ledger.lost.items()},
    }
    for name, rows in sections.items():
        if rows:
            table.add_section()
            table.add_row(f"[bold]{name}", "")
            for row, value in rows.items():
                table.add_row(f"  {row}", f"[red]{value:,}" if name == "must be 0" and value else f"{value:,}")
    console.print(table)
    for kind, found in (ledger.wrong | ledger.lost).items():
        for entry in found[:EXAMPLES]:
            console.print(f"{kind}: {entry}", markup=False, highlight=False, soft_wrap=True)


def write(file: Path, ledger: Ledger, done: Counter[str], plan: list[Fault], asked: dict[str, object]) -> None:
    """Write what was asked for, the ledger and the plan as JSON."""
    content = asked | {"passed": passed(ledger)} | asdict(ledger)
    content |= {"faults": dict(done), "kills": kills(done), "plan": plan} | failovers(done)
    file.write_text(json.dumps(content, indent=1) + "\n")


def passed(ledger: Ledger) -> bool:
    """Tell whether there were jobs, and nothing is wrong."""
    return ledger.counts["acknowledged"] > 0 and not any(ledger.wrong.values())


def kills(done: Counter[str]) -> int:
    """Return how many processes were killed."""
    return sum(times for kind, times in done.items() if kind.startswith("kill "))


def failovers(done: Counter[str]) -> dict[str, int]:
    """Return how often a replica was promoted, where there was one."""
    return {"failovers": sum(done[kind] for kind in FAILOVERS)} if FAILOVERS.keys() & done.keys() else {}
