"""From the samples of all rounds to medians and ranges, ratios and their targets, and the page that shows them."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple

from bench import LIMITS, PEERS

SYSTEMS, FUNCTIONS, CONCURRENCY, BACKLOG, REDIS = "systems", "functions", "concurrency", "backlog", "redis"
CONFIRMATION, BULK = "confirmation", "bulk"
"""The tables of the page."""
NOTHING, REPLICA, EVERYSEC, ALWAYS = "nothing", "a replica", "the disk (everysec)", "the disk (always)"
"""What an acknowledgement may wait for. How often the disk is written is `appendfsync` of Redis."""
WITHOUT, WITH_KEY, RETRY = "no key", "with a key", "meanwhile"
"""How jobs are submitted; the last while many others are retried."""
FASTEST_PEER = "the fastest peer"
"""Stands for the least value that any peer has."""
DURABILITY = "AOF on, appendfsync everysec, no snapshots"
"""Of every system, which is the default of local mode: `local.redis_server`."""


class Sample(NamedTuple):
    """One value of one round."""

    measure: str
    system: str
    """In a table that is not of systems: what stands in its place, such as a number of workers."""
    value: float
    unit: str
    table: str = SYSTEMS


Round = Sequence[Sample]
Row = dict[str, Any]
Cells = list[list[str]]


class Side(NamedTuple):
    """One side of a ratio."""

    measure: str
    system: str


class Ratio(NamedTuple):
    """What is divided by what, and what it should be. Without `under` it is the value itself."""

    over: Side
    under: Side | None
    target: float
    at_most: bool = False
    """Whether the target is the greatest value that is good enough; otherwise it is the least."""
    unit: str = ""

    def met(self, value: float) -> bool:
        """Return whether the value is good enough."""
        return value <= self.target if self.at_most else value >= self.target

    def wanted(self) -> str:
        """Return the target in words."""
        return f"at {'most' if self.at_most else 'least'} {self.target:g}{self.unit and ' '}{self.unit}"


def _ours(measure: str, other: str, target: float, at_most: bool = False) -> Ratio:
    return Ratio(Side(measure, "ours"), Side(measure, other), target, at_most)


def _at_most(measure: str, target: float, unit: str) -> Ratio:
    return Ratio(Side(measure, "ours"), None, target, at_most=True, unit=unit)


SUBMIT, DRAIN, SLOW_DRAIN = "submit, {} connections", "drain", "drain, Redis 1 ms away"
STATUS, ONE_JOB, START = "status", "one job, p50", "cold start"
WHOLE, PAGE = "list of {}, whole", "list of {}, page of 100, p50"
_LEAST_DRAIN = dict.fromkeys(PEERS, 1.2) | {"rq": 6, "celery": 2, "arq": 2}
RATIOS = {
    "submit64/bullmq": _ours(SUBMIT.format(64), "bullmq", 1),
    "submit16/bullmq": _ours(SUBMIT.format(16), "bullmq", 1.2),
    "submit16/original": _ours(SUBMIT.format(16), "original", 4),
    "submit16/empty": _ours(SUBMIT.format(16), "empty", 0.85),
    "status/bullmq": _ours(STATUS, "bullmq", 0.7),
    "status/empty": _ours(STATUS, "empty", 0.95),
    **{f"drain/{peer}": _ours(DRAIN, peer, least) for peer, least in _LEAST_DRAIN.items()},
    **{f"slowdrain/{peer}": _ours(SLOW_DRAIN, peer, 1.2) for peer in PEERS},
    "onejob/fastest": _ours(ONE_JOB, FASTEST_PEER, 1, at_most=True),
    "memory/dramatiq": _ours("memory of all processes", "dramatiq", 1, at_most=True),
    "keys of a finished job": _at_most("keys of a finished job", 400, "bytes"),
    "list100k/original": Ratio(Side(WHOLE.format(100_000), "original"), Side(WHOLE.format(100_000), "ours"), 25),
    "page1M/page1k": Ratio(Side(PAGE.format(1_000_000), "ours"), Side(PAGE.format(1_000), "ours"), 1.2, at_most=True),
    "coldstart/empty": Ratio(Side(START, "the slowest"), Side(START, "empty"), 1.25, at_most=True),
    **{
        f"submit16 confirmed by {what}": Ratio(Side(SUBMIT.format(16), what), Side(SUBMIT.format(16), NOTHING), least)
        for what, least in {REPLICA: 0.7, EVERYSEC: 0.001, ALWAYS: 0.1}.items()
    },
    **{
        f"onejob confirmed by {what}": Ratio(Side(ONE_JOB, what), Side(ONE_JOB, NOTHING), most, at_most=True)
        for what, most in {REPLICA: 1.5, EVERYSEC: 2000, ALWAYS: 10}.items()
    },
    "a client that waits": _at_most("a client that waits", 30, "kB"),
    "threads for 1000 clients": _at_most("threads for 1000 clients that wait", 0, "threads"),
}
"""Each is formed within a round, so that both sides had the same machine."""


def rows(rounds: Iterable[Round]) -> list[Row]:
    """Return median, least and greatest of each measure of each system, in the order in which they came first."""
    values: dict[tuple[str, str, str, str], list[float]] = {}
    for samples in rounds:
        for sample in samples:
            values.setdefault((sample.table, sample.measure, sample.system, sample.unit), []).append(sample.value)
    return [
        {"table": table, "measure": measure, "system": system, **_range(found), "unit": unit}
        for (table, measure, system, unit), found in values.items()
    ]


def ratios(rounds: Iterable[Round]) -> dict[str, dict[str, float]]:
    """Return the median, the least and the greatest of each ratio; without those that were not measured."""
    found: dict[str, list[float]] = {}
    for samples in rounds:
        value = {Side(sample.measure, sample.system): sample.value for sample in samples}
        of_peers = [value[side] for peer in PEERS if (side := Side(ONE_JOB, peer)) in value]
        if of_peers:
            value[Side(ONE_JOB, FASTEST_PEER)] = min(of_peers)
        for name, ratio in RATIOS.items():
            if ratio.over in value and (not ratio.under or ratio.under in value):
                under = value[ratio.under] if ratio.under else 1
                found.setdefault(name, []).append(value[ratio.over] / under)
    return {name: _range(found[name]) for name in RATIOS if name in found}


def page(results: list[Row], quotients: dict[str, dict[str, float]]) -> str:
    """Return everything as Markdown: the systems, each function, the targets, and how cost grows."""
    of: dict[str, list[Row]] = {}
    for row in results:
        of.setdefault(row["table"], []).append(row)
    parts: list[str] = []
    if SYSTEMS in of:
        systems = _present(of[SYSTEMS], ("ours", *PEERS, *LIMITS))
        parts += ["## Medians", "", *_grid(_across(of[SYSTEMS], systems, _median))]
        if any(row["min"] < row["max"] for row in of[SYSTEMS]):
            parts += ["## The least and the greatest of the rounds", "", *_grid(_across(of[SYSTEMS], systems, _ends))]
        parts += [f"Redis of every system: {DURABILITY}.", ""]
    if FUNCTIONS in of:
        parts += ["## Each function", "", *_grid(_down(of[FUNCTIONS]))]
    if CONFIRMATION in of:
        parts += ["## What confirmation costs", "", *_confirmation(of[CONFIRMATION])]
    if BULK in of:
        parts += ["## What a key and a bulk operation cost", "", *_bulk(of[BULK])]
    if quotients:
        parts += ["## Targets", "", *_targets(quotients)]
    if of.keys() & {CONCURRENCY, BACKLOG, REDIS}:
        parts += ["## How cost grows", "", *_growth(of)]
    return "\n".join(parts)


def _confirmation(results: list[Row]) -> Iterator[str]:
    yield "`ours`, with one replica on the same machine; a column is what an acknowledgement waits for: nothing,"
    yield from ("REDIS_WAIT_REPLICAS=1, or REDIS_WAIT_FSYNC=1 with that appendfsync.", "")
    yield from _grid(_across(results, _present(results), _with_ends))


def _bulk(results: list[Row]) -> Iterator[str]:
    yield "`ours`, while no worker takes a job: submissions without a key, with one, and without one while a bulk"
    yield from ("operation retries 100,000 jobs.", "")
    yield from _grid(_across(results, _present(results), _with_ends))


def _targets(quotients: dict[str, dict[str, float]]) -> Iterator[str]:
    """Yield a line for each ratio, then the names of those that miss their target by the median of the rounds."""
    met = {name: RATIOS[name].met(found["median"]) for name, found in quotients.items()}
    yield from _grid(
        [["ratio", "median", "min", "max", "target", ""]]
        + [
            [name, *map(_number, found.values()), RATIOS[name].wanted(), "met" if met[name] else "**missed**"]
            for name, found in quotients.items()
        ]
    )
    missed = [name for name in quotients if not met[name]]
    yield f"Missed: {', '.join(missed)}." if missed else "Every target that was measured is met."
    if unknown := [name for name in RATIOS if name not in quotients]:
        yield f"Not measured: {', '.join(unknown)}."
    yield ""


def _growth(of: dict[str, list[Row]]) -> Iterator[str]:
    """Yield the page that says how cost grows: with workers, with waiting jobs, and until Redis is full."""
    if CONCURRENCY in of:
        yield from ("### With the number of workers", "")
        yield from ("`ours`; each worker has one job at a time. A column is a number of workers.", "")
        yield from _grid(_across(of[CONCURRENCY], _present(of[CONCURRENCY]), _with_ends))
    if BACKLOG in of:
        yield from ("### With the number of waiting jobs", "")
        yield from ("`ours`; a column is a number of jobs that wait while this is done, and no worker takes one.", "")
        yield from _grid(_across(of[BACKLOG], _present(of[BACKLOG]), _with_ends))
    if REDIS in of:
        yield from ("### Where one Redis ends", "")
        yield from _grid(_across(of[REDIS], _present(of[REDIS]), _with_ends))
        for paragraph in _end_of_redis({row["measure"]: row["median"] for row in of[REDIS]}):
            yield from (*textwrap.wrap(paragraph, width=120), "")


REDIS_SCRIPTS, REDIS_COMMANDS = "script calls of a job", "commands of a job, those in scripts included"
REDIS_MICROS, REDIS_JOBS = "time of the main thread for a job", "jobs a second meanwhile"
REDIS_COMMANDS_PER_SECOND = "commands a second meanwhile"


def _end_of_redis(value: dict[str, float]) -> Iterator[str]:
    micros = value[REDIS_MICROS]
    yield (
        f"From its submission to its end, a job without progress reports is {value[REDIS_SCRIPTS]:.1f} calls of "
        f"scripts. In them Redis runs {value[REDIS_COMMANDS]:.0f} commands, which take {micros:.0f} microseconds of "
        f"its one main thread. So one Redis ends near {_number(1e6 / micros)} jobs a second on a core like this one "
        f"that nothing else uses, whatever the number of functions and workers; here, where all of it shared the "
        f"machine, it had {_number(value[REDIS_JOBS])}. Queries come on top of that."
    )
    yield (
        "What helps until then: batches (`POST /jobs` with an array), a faster core for Redis alone, a Redis that is "
        "near. What does not help: a Redis Cluster, for all keys of an installation are on one node. Beyond it, run "
        "the whole more than once: a namespace each, with its own Redis, Broker and workers. Clients choose one by the "
        "kind of the job, by tenant, or by a hash of their own key, and ask the same one for the status. No two of "
        "them share anything, so their rates add up; each has lists and a dashboard of its own."
    )


def _range(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def _present(results: list[Row], order: Iterable[str] = ()) -> list[str]:
    """Return the systems that have a value; first those in this order."""
    measured = dict.fromkeys(row["system"] for row in results)
    return list(dict.fromkeys([name for name in order if name in measured] + list(measured)))


def _across(results: list[Row], columns: list[str], cell: Any) -> Cells:
    """A measure a row, a system a column."""
    found = {(row["measure"], row["system"]): cell(row) for row in results}
    units = {row["measure"]: row["unit"] for row in results}
    return [["", *columns]] + [
        [f"{measure}, {unit}", *(found.get((measure, system), "-") for system in columns)]
        for measure, unit in units.items()
    ]


def _down(results: list[Row]) -> Cells:
    """A system a row, a measure a column."""
    return [list(column) for column in zip(*_across(results, _present(results), _with_ends), strict=True)]


def _median(row: Row) -> str:
    return _number(row["median"])


def _ends(row: Row) -> str:
    return f"{_number(row['min'])} - {_number(row['max'])}"


def _with_ends(row: Row) -> str:
    return f"{_median(row)} ({_ends(row)})" if row["min"] < row["max"] else _median(row)


def _grid(cells: Cells) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    ruler = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return ["| " + " | ".join(_aligned(row, widths)) + " |" for row in (cells[0], ruler, *cells[1:])] + [""]


def _aligned(row: list[str], widths: list[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


def _number(value: float) -> str:
    """Return it with three digits that count."""
    digits = 0 if value == 0 or abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"
