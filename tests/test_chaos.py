"""The chaos run: it passes, it says what it did, and its ledger sees what it is there to see."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chaos.faults import FAILOVERS, kinds, plan
from chaos.ledger import impossible, index_faults, read
from tests.conftest import ROOT, Redis, Start

ENDED = ("completed", "failed", "cancelled")


def chaos(root: Path, report: Path, *options: str) -> tuple[int, str, dict[str, Any]]:
    """Run the one in the tree at `root`. Return its exit code, what it printed, and its JSON."""
    run = subprocess.run(
        [sys.executable, "-P", "-m", "chaos", "--json", report, *options],
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'functions'}"},
        capture_output=True,
        text=True,
    )
    assert report.exists(), run.stdout + run.stderr
    return run.returncode, run.stdout, json.loads(report.read_text())


class TestARun:
    def test_a_short_run_loses_nothing_and_doubles_nothing(self, tmp_path: Path) -> None:
        seed = str(random.randrange(1_000_000))
        code, printed, ledger = chaos(ROOT, tmp_path / "ledger", "--seconds", "15", "--seed", seed)
        assert code == 0, printed
        assert f"--seed {seed} " in printed
        assert not any(ledger["wrong"].values())
        assert not ledger["lost"]
        assert ledger["passed"]
        assert ledger["kills"] >= 3
        counts = ledger["counts"]
        assert counts["acknowledged"] > 0
        assert sum(counts[ended] for ended in ENDED) == counts["acknowledged"] + counts["unknown, made"]

    def test_when_the_primary_of_redis_fails_meanwhile_it_loses_nothing_either(self, tmp_path: Path) -> None:
        seconds = 15
        seed = next(
            seed
            for seed in iter(lambda: random.randrange(1_000_000), None)
            if any(fault.kind in FAILOVERS and fault.at_s < seconds / 2 for fault in plan(seed, seconds, kinds(True)))
        )
        code, printed, ledger = chaos(
            ROOT, tmp_path / "ledger", "--failover", "--seconds", str(seconds), "--seed", str(seed)
        )
        assert code == 0, printed
        assert not any(ledger["wrong"].values())
        assert not ledger["lost"]
        assert ledger["failovers"] >= 1
        assert ledger["counts"]["acknowledged"] > 0


class TestARunWithoutFencing:
    def test_the_ledger_shows_jobs_that_were_done_twice(self, tmp_path: Path) -> None:
        for part in ("functions", "local", "knative", "chaos", "harness"):
            shutil.copytree(ROOT / part, tmp_path / part)
        script = tmp_path / "functions" / "knative_jobs" / "store" / "lua" / "prelude.lua"
        fence = "return job and job[1] == 'in progress' and job[4] == attempt and job"
        assert fence in script.read_text()
        script.write_text(script.read_text().replace(fence, "return job"))
        code, printed, ledger = chaos(tmp_path, tmp_path / "ledger", "--seconds", "30", "--seed", "1")
        assert code == 1, printed
        assert ledger["wrong"]["doubled"], printed
        assert not ledger["passed"]
        kept = re.search(r"What it wrote is in (\S+)", printed)
        assert kept
        shutil.rmtree(kept[1])


def test_a_seed_decides_the_plan() -> None:
    assert plan(1, 180) == plan(1, 180) != plan(2, 180)
    assert plan(1, 60) == [fault for fault in plan(1, 180) if fault.at_s < 60]
    assert sum(fault.kind.startswith("kill") for fault in plan(1, 180)) > 60


class TestWhatTheLedgerSees:
    @pytest.fixture
    def job_id(self, endpoint: Start, store: Redis) -> str:
        job_id = str(endpoint("jobs").request("POST", "/jobs", body=b'{"start": 1, "end": 2}').json()["id"])
        assert self.seen(store) == []
        return job_id

    @pytest.mark.parametrize(
        "damage",
        [
            lambda r, i: r.zrem("jobs.due", i),
            lambda r, i: r.zrem("jobs.submitted", i),
            lambda r, i: r.zrem("jobs.incomplete", i),
            lambda r, i: r.zadd("jobs.complete", {i: 1}),
            lambda r, i: r.zadd("jobs.leases", {i: 1}),
            lambda r, i: r.zadd("jobs.retention", {i: 1}),
            lambda r, i: r.zincrby("jobs.submitted", 1, i),
            lambda r, i: r.delete(f"job.{i}"),
            lambda r, i: r.hset(f"job.{i}", "status", "in progress"),
            lambda r, i: r.hset(f"job.{i}", "status", "lost"),
            lambda r, i: r.hset(f"job.{i}", "id", "another"),
            lambda r, i: r.hdel(f"job.{i}", "start"),
        ],
    )
    def test_an_index_or_a_record_that_is_not_as_it_must_be(
        self, store: Redis, job_id: str, damage: Callable[..., object]
    ) -> None:
        damage(store.client, job_id)
        assert job_id in " ".join(self.seen(store))

    def seen(self, store: Redis) -> list[str]:
        everything = read(store.client)
        return [*index_faults(everything), *impossible(everything)]
