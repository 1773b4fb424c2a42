"""The report of the benchmark, from given samples: nothing here measures."""

import pytest

from bench.report import RATIOS, Sample, ratios, rows, table


def round_of(**values: float) -> list[Sample]:
    """A round of drains, by system."""
    return [Sample("drain", system, value, "jobs/s") for system, value in values.items()]


THREE_ROUNDS = [round_of(ours=900, rq=100), round_of(ours=1000, rq=200), round_of(ours=2000, rq=250)]


def test_a_row_is_the_median_of_all_rounds():
    assert rows(THREE_ROUNDS) == [
        {"measure": "drain", "system": "ours", "value": 1000, "unit": "jobs/s"},
        {"measure": "drain", "system": "rq", "value": 200, "unit": "jobs/s"},
    ]


def test_a_ratio_is_formed_within_each_round():
    assert ratios(THREE_ROUNDS) == {"drain/rq": {"median": 8, "min": 5, "max": 9}}


@pytest.mark.parametrize(
    ("name", "over", "under"),
    [
        ("submit/original", ("submit, 16 connections", "ours"), ("submit, 16 connections", "original")),
        ("submit/empty", ("submit, 16 connections", "ours"), ("submit, 16 connections", "empty")),
        ("drain/rq", ("drain", "ours"), ("drain", "rq")),
        ("drain/celery", ("drain", "ours"), ("drain", "celery")),
        ("drain/arq", ("drain", "ours"), ("drain", "arq")),
        ("drain/dramatiq", ("drain", "ours"), ("drain", "dramatiq")),
        ("drain/huey", ("drain", "ours"), ("drain", "huey")),
        ("list100k/original", ("list of 100000, whole", "original"), ("list of 100000, whole", "ours")),
        ("page1M/page1k", ("list of 1000000, page of 100, p50", "ours"), ("list of 1000, page of 100, p50", "ours")),
        ("coldstart/empty", ("cold start", "the slowest"), ("cold start", "empty")),
        ("status/empty", ("status", "ours"), ("status", "empty")),
    ],
)
def test_each_ratio_is_of_what_its_name_says(name, over, under):
    samples = [Sample(*over, 30, ""), Sample(*under, 10, "")]
    assert ratios([samples]) == {name: {"median": 3, "min": 3, "max": 3}}


def test_there_are_eleven_ratios():
    assert len(RATIOS) == 11


def test_the_table_shows_every_system_and_every_ratio_and_the_durability():
    shown = table(rows(THREE_ROUNDS), ratios(THREE_ROUNDS))
    assert "| drain, jobs/s | 1,000 |        - | 200 |" in shown
    assert "| drain/rq |   8.00 | 5.00 | 9.00 | at least 6 |" in shown
    assert "appendfsync everysec" in shown
