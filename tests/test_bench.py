"""The benchmark: its report, from given samples, and the parts that can be tried without measuring.

None of it needs Node.js or an environment of a peer.
"""

import json
import re

import pytest

import bench.running
from bench import LIMITS, PEERS, ROOT, load
from bench.fill import copy
from bench.measures import FULL, QUICK
from bench.plan import ALL, GROWTH, rounds_of
from bench.report import (
    ALWAYS,
    BACKLOG,
    BULK,
    CONCURRENCY,
    CONFIRMATION,
    EVERYSEC,
    FUNCTIONS,
    NOTHING,
    ONE_JOB,
    RATIOS,
    REDIS,
    REDIS_COMMANDS,
    REDIS_JOBS,
    REDIS_MICROS,
    REDIS_SCRIPTS,
    REPLICA,
    RETRY,
    SUBMIT,
    SYSTEMS,
    WITH_KEY,
    WITHOUT,
    Sample,
    page,
    ratios,
    rows,
)

REQUIREMENTS = ROOT / "bench" / "requirements"


PAGE = "list of {}, page of 100, p50"


def round_of(**values: float) -> list[Sample]:
    """A round of drains, by system."""
    return [Sample("drain", system, value, "jobs/s") for system, value in values.items()]


THREE_ROUNDS = [round_of(ours=900, rq=100), round_of(ours=1000, rq=200), round_of(ours=2000, rq=250)]


def page_of(*rounds: list[Sample]) -> str:
    return page(rows(rounds), ratios(rounds))


class TestRows:
    def test_a_row_has_the_median_and_the_range_of_all_rounds(self):
        ours, rq = rows(THREE_ROUNDS)
        assert ours == {
            "table": SYSTEMS,
            "measure": "drain",
            "system": "ours",
            "median": 1000,
            "min": 900,
            "max": 2000,
            "unit": "jobs/s",
        }
        assert (rq["system"], rq["median"], rq["min"], rq["max"]) == ("rq", 200, 100, 250)

    def test_a_measure_that_is_in_some_rounds_alone_counts_those(self):
        once = Sample("list of 1000, whole", "ours", 9, "ms")
        assert rows([[], [once], []])[0]["median"] == 9


class TestRatios:
    def test_a_ratio_is_formed_within_each_round(self):
        assert ratios(THREE_ROUNDS) == {"drain/rq": {"median": 8, "min": 5, "max": 9}}

    @pytest.mark.parametrize(
        ("name", "over", "under"),
        [
            ("submit64/bullmq", ("submit, 64 connections", "ours"), ("submit, 64 connections", "bullmq")),
            ("submit16/bullmq", ("submit, 16 connections", "ours"), ("submit, 16 connections", "bullmq")),
            ("submit16/original", ("submit, 16 connections", "ours"), ("submit, 16 connections", "original")),
            ("submit16/empty", ("submit, 16 connections", "ours"), ("submit, 16 connections", "empty")),
            ("status/bullmq", ("status", "ours"), ("status", "bullmq")),
            ("status/empty", ("status", "ours"), ("status", "empty")),
            *((f"drain/{peer}", ("drain", "ours"), ("drain", peer)) for peer in PEERS),
            *(
                (f"slowdrain/{peer}", ("drain, Redis 1 ms away", "ours"), ("drain, Redis 1 ms away", peer))
                for peer in PEERS
            ),
            ("onejob/fastest", ("one job, p50", "ours"), ("one job, p50", "saq")),
            ("memory/dramatiq", ("memory of all processes", "ours"), ("memory of all processes", "dramatiq")),
            ("list100k/original", ("list of 100000, whole", "original"), ("list of 100000, whole", "ours")),
            (
                "page1M/page1k",
                ("list of 1000000, page of 100, p50", "ours"),
                ("list of 1000, page of 100, p50", "ours"),
            ),
            ("coldstart/empty", ("cold start", "the slowest"), ("cold start", "empty")),
            *(
                (f"submit16 confirmed by {what}", (SUBMIT.format(16), what), (SUBMIT.format(16), NOTHING))
                for what in (REPLICA, EVERYSEC, ALWAYS)
            ),
            *(
                (f"onejob confirmed by {what}", (ONE_JOB, what), (ONE_JOB, NOTHING))
                for what in (REPLICA, EVERYSEC, ALWAYS)
            ),
        ],
    )
    def test_each_is_of_what_its_name_says(self, name, over, under):
        samples = [Sample(*over, 30, ""), Sample(*under, 10, "")]
        assert ratios([samples]) == {name: {"median": 3, "min": 3, "max": 3}}

    def test_one_job_alone_is_compared_with_the_peer_that_is_the_fastest_in_that_round(self):
        times = {"ours": 3, "huey": 2, "bullmq": 4}
        first = [Sample("one job, p50", system, ms, "ms") for system, ms in times.items()]
        second = [Sample("one job, p50", system, ms, "ms") for system, ms in (times | {"bullmq": 1}).items()]
        assert ratios([first, second])["onejob/fastest"] == {"median": 2.25, "min": 1.5, "max": 3}

    @pytest.mark.parametrize(
        ("name", "measure"),
        [
            ("keys of a finished job", "keys of a finished job"),
            ("a client that waits", "a client that waits"),
            ("threads for 1000 clients", "threads for 1000 clients that wait"),
        ],
    )
    def test_some_targets_are_for_a_value_alone(self, name, measure):
        assert ratios([[Sample(measure, "ours", 30, ""), Sample(measure, "huey", 10, "")]]) == {
            name: {"median": 30, "min": 30, "max": 30}
        }

    def test_every_peer_has_a_target(self):
        assert len(RATIOS) == 20 + 2 * len(PEERS)
        assert {name for name in RATIOS if name.startswith("drain/")} == {f"drain/{peer}" for peer in PEERS}

    @pytest.mark.parametrize(("value", "met"), [(1.19, False), (1.2, True), (3, True)])
    def test_a_target_may_be_a_least_value(self, value, met):
        assert RATIOS["drain/bullmq"].met(value) == met

    @pytest.mark.parametrize(("value", "met"), [(0, True), (400, True), (401, False)])
    def test_a_target_may_be_a_greatest_value(self, value, met):
        assert RATIOS["keys of a finished job"].met(value) == met


class TestPage:
    def test_it_shows_every_system_with_medians_and_ranges_and_the_durability(self):
        shown = page_of(*THREE_ROUNDS)
        assert "| drain, jobs/s | 1,000 | 200 |" in shown
        assert "| drain, jobs/s | 900 - 2,000 | 100 - 250 |" in shown
        assert "appendfsync everysec" in shown

    def test_a_system_that_was_left_out_has_no_column(self):
        header = next(line for line in page_of(*THREE_ROUNDS).splitlines() if line.startswith("|"))
        assert header.split() == ["|", "|", "ours", "|", "rq", "|"]

    def test_the_systems_stand_in_one_order_whoever_was_measured_first(self):
        measured = [Sample("drain", system, 1, "jobs/s") for system in reversed(("ours", *PEERS, *LIMITS))]
        header = next(line for line in page_of(measured).splitlines() if line.startswith("|"))
        assert re.findall(r"\w+", header) == ["ours", *PEERS, *LIMITS]

    def test_a_target_that_is_missed_by_the_median_is_named_as_missed(self):
        shown = page_of(round_of(ours=1000, rq=200, huey=900), round_of(ours=1000, rq=100, huey=100))
        assert re.search(r"\| drain/rq .*\| +at least 6 \| +met \|", shown)
        assert "Missed" not in shown
        shown = page_of(round_of(ours=1000, rq=200, huey=900))
        assert re.search(r"\| drain/huey .*\| +at least 1.2 \| \*\*missed\*\* \|", shown)
        assert "Missed: drain/rq, drain/huey." in shown

    def test_it_says_which_targets_were_not_measured(self):
        (names,) = re.findall(r"Not measured: (.*)\.", page_of(*THREE_ROUNDS))
        assert set(names.split(", ")) == RATIOS.keys() - {"drain/rq"}

    def test_functions_have_a_table_of_their_own(self):
        samples = [
            Sample("cold start", "jobs", 200, "ms", FUNCTIONS),
            Sample("memory of a function", "jobs", 80, "MB", FUNCTIONS),
        ]
        shown = page_of(samples)
        assert "| jobs |            200 |" in shown
        assert "Medians" not in shown

    def test_cost_by_workers_and_by_waiting_jobs_has_a_column_for_each_number(self):
        samples = [
            Sample("drain, 1 ms of work", "1 worker", 100, "jobs/s", CONCURRENCY),
            Sample("drain, 1 ms of work", "2 workers", 150, "jobs/s", CONCURRENCY),
            Sample("a pass of the sweep", "10", 1, "ms", BACKLOG),
            Sample("a pass of the sweep", "1,000,000", 2, "ms", BACKLOG),
        ]
        more = [Sample("drain, 1 ms of work", "1 worker", 120, "jobs/s", CONCURRENCY)]
        shown = page_of(samples, more)
        assert "## How cost grows" in shown
        assert "| drain, 1 ms of work, jobs/s | 110 (100 - 120) |       150 |" in shown
        assert re.search(r"\| +\| +10 \| 1,000,000 \|", shown)

    def test_what_confirmation_costs_has_a_column_for_what_is_waited_for(self):
        samples = [Sample(ONE_JOB, what, ms, "ms", CONFIRMATION) for what, ms in ((NOTHING, 2), (REPLICA, 3))]
        shown = page_of(samples)
        assert "## What confirmation costs" in shown
        assert re.search(r"\| one job, p50, ms \| +2.00 \| +3.00 \|", shown)
        assert re.search(r"\| onejob confirmed by a replica \| +1.50 \|", shown)

    def test_what_a_key_and_a_bulk_operation_cost_has_a_column_for_each(self):
        samples = [
            Sample("submit", what, rate, "requests/s", BULK) for what, rate in ((WITHOUT, 9), (WITH_KEY, 8), (RETRY, 7))
        ]
        shown = page_of(samples)
        assert "## What a key and a bulk operation cost" in shown
        assert re.search(r"\| submit, requests/s \| +9.00 \| +8.00 \| +7.00 \|", shown)

    def test_it_says_where_one_redis_ends(self):
        values = {REDIS_SCRIPTS: 3, REDIS_COMMANDS: 40, REDIS_MICROS: 200, REDIS_JOBS: 1500}
        shown = page_of([Sample(what, "ours", value, "", REDIS) for what, value in values.items()])
        words = " ".join(shown.split())
        assert "one Redis ends near 5,000 jobs a second" in words
        assert "it had 1,500" in words
        assert "a namespace each, with its own Redis" in words


class TestSystems:
    @pytest.mark.parametrize("peer", PEERS)
    def test_a_peer_is_one_file_and_what_it_needs_is_pinned(self, peer):
        files = [ROOT / "bench" / "systems" / f"{peer}.{kind}" for kind in ("py", "js")]
        assert [file.exists() for file in files].count(True) == 1
        if files[0].exists():
            lines = (REQUIREMENTS / f"{peer}.txt").read_text().splitlines()
            assert lines
            assert all(re.fullmatch(r"[\w\[\],-]+==[\d.]+", line) for line in lines)

    def test_the_packages_of_the_javascript_peer_are_pinned_with_a_lock_file(self):
        wanted = json.loads((REQUIREMENTS / "bullmq" / "package.json").read_text())["dependencies"]
        locked = json.loads((REQUIREMENTS / "bullmq" / "package-lock.json").read_text())["packages"]
        assert wanted.keys() == {"bullmq", "fastify", "ioredis"}
        assert {name: locked[f"node_modules/{name}"]["version"] for name in wanted} == wanted
        assert all("integrity" in package for name, package in locked.items() if name)

    def test_a_peer_that_could_not_be_installed_is_left_out(self, tmp_path, monkeypatch):
        monkeypatch.setattr(bench.running, "ENVIRONMENTS", tmp_path)
        for name in ("ours", "saq", "rq"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "installed").touch()
        (tmp_path / "bullmq").mkdir()  # begun, and not finished
        assert bench.running.peers() == ["rq", "saq"]

    def test_what_takes_long_is_not_in_every_round(self):
        assert ALL.keys() > GROWTH
        assert rounds_of("lists", FULL) == FULL.list_rounds < FULL.rounds
        assert rounds_of("backlog", QUICK) == QUICK.growth_rounds < QUICK.rounds
        assert rounds_of("confirmation", QUICK) == QUICK.growth_rounds
        assert rounds_of("drain", QUICK) > 1000


class TestFill:
    @staticmethod
    def submit(endpoint, store) -> str:
        answer = endpoint("jobs").request("POST", "/jobs", body='{"start": "1", "end": "2"}')
        return answer.json()["id"]

    def test_copies_of_a_waiting_job_wait_too_in_the_order_of_their_numbers(self, store, endpoint):
        job_id = self.submit(endpoint, store)
        copy(store.client, job_id, 1, 1200)
        due = store.client.zrange("jobs.due", 0, -1)
        assert due[0] == job_id
        assert len(due) == 1201
        assert due == store.client.zrange("jobs.submitted", 0, -1) == store.client.zrange("jobs.incomplete", 0, -1)
        record = store.record(due[7])
        assert record["id"] == due[7]
        assert {**record, "id": "", "submitted-at": ""} == {**store.record(job_id), "id": "", "submitted-at": ""}
        assert float(record["submitted-at"]) == pytest.approx(store.client.zscore("jobs.due", due[7]))

    def test_copies_of_another_job_are_others_where_they_are_kept_apart(self, store, endpoint):
        copy(store.client, self.submit(endpoint, store), 1, 10)
        copy(store.client, self.submit(endpoint, store), 1, 10, apart=1000)
        assert store.client.zcard("jobs.due") == 22


class TestLoad:
    def test_a_load_counts_what_is_answered_and_what_is_refused(self, store, endpoint):
        port = endpoint("jobs").port
        requests = [load.post("/jobs", {"start": "1", "end": "2"}), load.post("/jobs", {"start": "1"})]
        result = load.so_many(10, port, requests, 3)
        assert (len(result.bodies), result.refused, len(result.latencies)) == (5, 5, 10)
        assert len(set(result.ids())) == 5 == store.client.zcard("jobs.due")
        assert result.latencies == sorted(result.latencies)
