"""The picture: a bar for each system, in one panel for each of the measures that matter most."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import PEERS
from bench.report import Row

PANELS = {
    "submit, 16 connections": "POST /jobs, 16 connections\nrequests/s, more is better",
    "submit, 64 connections": "POST /jobs, 64 connections\nrequests/s, more is better",
    "status": "GET /jobs_status, 16 connections\nrequests/s, more is better",
    "drain": "HTTP submission to complete\njobs/s, more is better",
    "drain, Redis 1 ms away": "the same, Redis 1 ms away\njobs/s, more is better",
    "one job, p50": "one job on an idle system, p50\nms, less is better (logarithmic)",
    "list of 100000, whole": "GET /completed_jobs, 100,000 jobs\nms, less is better (logarithmic)",
    "memory of all processes": "memory of all processes but Redis\nMB, less is better",
    "keys of a finished job": "keys in Redis of a finished job\nbytes, less is better (logarithmic)",
}
LOGARITHMIC = {"one job, p50", "list of 100000, whole", "keys of a finished job"}
COLUMNS = 3
SYSTEMS = ("ours", *PEERS)
OURS, OTHER = "#1f6feb", "#b6bec9"


def draw(rows: list[Row], file: Path) -> None:
    """Draw what was measured of it into a file, whose name says the format: .svg or .png."""
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 9, "axes.titlesize": 9}
    figure = Figure(figsize=(9.6, 9.6), layout="constrained")
    all_axes = figure.subplots(-(-len(PANELS) // COLUMNS), COLUMNS).flat
    for axes, (measure, title) in zip(all_axes, PANELS.items(), strict=True):
        value = {row["system"]: row["median"] for row in rows if row["measure"] == measure}
        _bars(axes, {system: value[system] for system in SYSTEMS if system in value}, measure in LOGARITHMIC)
        axes.set_title(title)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def _bars(axes: Axes, value: dict[str, float], logarithmic: bool) -> None:
    bars = axes.barh(list(value), list(value.values()), color=[OURS if s == "ours" else OTHER for s in value])
    axes.bar_label(bars, [f"{v:,.0f}" if v >= 10 else f"{v:.1f}" for v in value.values()], padding=3)
    axes.set_ylim(len(SYSTEMS) - 0.5, -0.5)
    most = max(value.values(), default=1)
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(1, 2 * most**1.2)
    else:
        axes.set_xlim(0, most * 1.25)
    axes.set_xticks([])
    axes.minorticks_off()
    axes.spines[["top", "right", "bottom"]].set_visible(False)
