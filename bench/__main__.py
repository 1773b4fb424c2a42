"""`python -m bench`, see `--help`."""

import argparse
import json
import os
import platform
import signal
import sys
import time
from pathlib import Path

from bench import ENVIRONMENTS, PEERS, picture, plan, report, running
from bench.measures import FULL, QUICK
from bench.report import Sample
from local import redis_server


def main() -> None:
    """Measure, and say what came of it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # and not without ending what was started
    options = _options()
    effort = QUICK if options.quick else FULL
    machine, began_at = _machine(), time.monotonic()
    if left_out := [name for name in PEERS if name not in running.peers()]:
        print(f"Left out, for they are not installed: {', '.join(left_out)}.", file=sys.stderr)
    rounds: list[list[Sample]] = []
    for number in range(options.rounds or effort.rounds):
        rounds.append([])
        for name in options.only:
            if number >= plan.rounds_of(name, effort):
                continue
            for sample in plan.ALL[name](effort):
                passed_s = time.monotonic() - began_at
                said = f"{sample.measure}: {sample.value:,.1f} {sample.unit}"
                print(f"{passed_s:5.0f} s  round {number + 1}  {sample.system:14} {said}", file=sys.stderr, flush=True)
                rounds[-1].append(sample)
    rows, ratios = report.rows(rounds), report.ratios(rounds)
    print(f"\n{machine}; medians of {len(rounds)} rounds in {(time.monotonic() - began_at) / 60:.0f} minutes.\n")
    if left_out:
        print(f"Left out, for they were not installed: {', '.join(left_out)}.\n")
    print(report.page(rows, ratios))
    picture.draw(rows, options.picture)
    print(f"Picture: {options.picture}")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "ratios": ratios}, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("scripts/bench", description="Measure this job API and its peers side by side.")
    add = parser.add_argument
    add("--quick", action="store_true", help="less than ten minutes, instead of less than forty")
    add("--json", type=Path, metavar="FILE", help="where to write all medians, ranges and ratios")
    picture = ENVIRONMENTS / "bench.svg"
    add("--picture", type=Path, metavar="FILE", default=picture, help="an .svg or .png (default: .bench/bench.svg)")
    add("--rounds", type=int, metavar="N", help=f"how many (default: {FULL.rounds}, quick: {QUICK.rounds})")
    names = list(plan.ALL)
    add("--only", nargs="+", choices=names, default=names, metavar="NAME", help=f"some of: {' '.join(names)}")
    return parser.parse_args()


def _machine() -> str:
    """Describe it. Where its load before was not near 0, the figures mean little."""
    redis, load = redis_server.binary().name, os.getloadavg()[0]
    system = f"{os.cpu_count()} cores, {platform.platform(terse=True)}"
    return f"{system}, Python {platform.python_version()}, {redis}, load before {load:.1f}"


if __name__ == "__main__":
    main()
