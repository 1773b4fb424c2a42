"""From the samples of all rounds to medians, ratios, and the table of both."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, NamedTuple

from bench import LIMITS, PEERS


class Sample(NamedTuple):
    """One value of one round."""

    measure: str
    system: str
    value: float
    unit: str


Round = Sequence[Sample]
Row = dict[str, Any]
Cells = list[list[str]]
OF_FUNCTIONS = ("cold start", "memory of a function")
DURABILITY = "AOF on, appendfsync everysec, no snapshots"
"""Of every system, which is the default of local mode: `local.redis_server`."""


class Side(NamedTuple):
    """One side of a ratio."""

    measure: str
    system: str


class Ratio(NamedTuple):
    """What is divided by what."""

    over: Side
    under: Side
    target: str = ""


def _drain(peer: str, target: str) -> Ratio:
    return Ratio(Side("drain", "ours"), Side("drain", peer), target)


SUBMIT, STATUS, START = "submit, 16 connections", "status", "cold start"
WHOLE, PAGE = "list of {}, whole", "list of {}, page of 100, p50"
RATIOS = {
    "submit/original": Ratio(Side(SUBMIT, "ours"), Side(SUBMIT, "original"), "at least 4"),
    "submit/empty": Ratio(Side(SUBMIT, "ours"), Side(SUBMIT, "empty"), "at least 0.5"),
    "drain/rq": _drain("rq", "at least 6"),
    "drain/celery": _drain("celery", "at least 2"),
    "drain/arq": _drain("arq", "at least 2"),
    "drain/dramatiq": _drain("dramatiq", "at least 1.2"),
    "drain/huey": _drain("huey", "at least 1.2"),
    "list100k/original": Ratio(
        Side(WHOLE.format(100_000), "original"), Side(WHOLE.format(100_000), "ours"), "at least 25"
    ),
    "page1M/page1k": Ratio(Side(PAGE.format(1_000_000), "ours"), Side(PAGE.format(1_000), "ours"), "at most 1.5"),
    "coldstart/empty": Ratio(Side(START, "the slowest"), Side(START, "empty"), "at most 1.4"),
    "status/empty": Ratio(Side(STATUS, "ours"), Side(STATUS, "empty"), "at least 0.6"),
}
"""Each is formed within a round, so that both sides had the same machine."""


def rows(rounds: Iterable[Round]) -> list[Row]:
    """Return the median of each measure of each system, in the order in which they came first."""
    values: dict[tuple[str, str, str], list[float]] = {}
    for samples in rounds:
        for sample in samples:
            values.setdefault((sample.measure, sample.system, sample.unit), []).append(sample.value)
    return [
        {"measure": measure, "system": system, "value": median(found), "unit": unit}
        for (measure, system, unit), found in values.items()
    ]


def ratios(rounds: Iterable[Round]) -> dict[str, dict[str, float]]:
    """Return the median, the least and the greatest of each ratio; without those that were not measured."""
    found: dict[str, list[float]] = {}
    for samples in rounds:
        value = {Side(sample.measure, sample.system): sample.value for sample in samples}
        for name, ratio in RATIOS.items():
            if ratio.over in value and ratio.under in value:
                found.setdefault(name, []).append(value[ratio.over] / value[ratio.under])
    return {name: {"median": median(v), "min": min(v), "max": max(v)} for name, v in found.items()}


def table(results: list[Row], quotients: dict[str, dict[str, float]]) -> str:
    """Return both as Markdown: a column a system; then what is measured of each function; then the ratios."""
    of_functions = [row for row in results if row["measure"] in OF_FUNCTIONS]
    of_systems = [row for row in results if row["measure"] not in OF_FUNCTIONS]
    grids = [
        _across(of_systems, columns=["ours", *PEERS, *LIMITS]),
        _down(of_functions),
        [["ratio", "median", "min", "max", "target"]]
        + [[name, *map(_number, found.values()), RATIOS[name].target] for name, found in quotients.items()],
    ]
    lines = [line for grid in grids if len(grid) > 1 for line in _grid(grid)]
    return "\n".join([*lines, f"Redis of every system: {DURABILITY}."])


def _across(results: list[Row], columns: list[str]) -> Cells:
    """A measure a row, a system a column."""
    value = {(row["measure"], row["system"]): row["value"] for row in results}
    units = {row["measure"]: row["unit"] for row in results}
    return [["", *columns]] + [
        [f"{measure}, {unit}", *(_number(value.get((measure, system))) for system in columns)]
        for measure, unit in units.items()
    ]


def _down(results: list[Row]) -> Cells:
    """A system a row, a measure a column."""
    across = _across(results, list(dict.fromkeys(row["system"] for row in results)))
    return [list(column) for column in zip(*across, strict=True)]


def _grid(cells: Cells) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    ruler = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return ["| " + " | ".join(_aligned(row, widths)) + " |" for row in (cells[0], ruler, *cells[1:])] + [""]


def _aligned(row: list[str], widths: list[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


def _number(value: float | None) -> str:
    """Return it with three digits that count; a dash for what a system does not have."""
    if value is None:
        return "-"
    digits = 0 if value == 0 or abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"
