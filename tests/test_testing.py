"""`knative_jobs.testing`: a test of somebody's own work, without Redis."""

from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from knative_jobs import Fail, Job, Retry
from knative_jobs.testing import run
from tests.conftest import ROOT


def steps(job: Job) -> list[object]:
    for step in range(1, 5):
        job.progress(step / 4, f"step {step}")
    return [job.start, job.end, job.input, job.kind, job.attempt]


def test_the_result_is_as_it_is_read_from_the_record() -> None:
    ended = run(steps, start=1, end="2", input=(1, 2.5), kind="add", attempt=3)
    assert (ended.outcome, ended.error) == ("complete", None)
    assert ended.result == [1, "2", [1, 2.5], "add", 3]
    assert ended.progress == [(0.25, "step 1"), (0.5, "step 2"), (0.75, "step 3"), (1.0, "step 4")]


def test_a_cancellation_is_heard_of_at_the_next_progress() -> None:
    ended = run(steps, cancel_after=2)
    assert (ended.outcome, len(ended.progress)) == ("cancelled", 2)
    assert run(steps, cancel_after=0).progress == []


@pytest.mark.parametrize(
    ("raised", "outcome", "after_s"),
    [(ValueError("oh"), "error", None), (Retry(after=60), "error", 60), (Fail("oh"), "failed", None)],
)
def test_what_is_raised_ends_the_attempt(raised: Exception, outcome: str, after_s: float | None) -> None:
    def work(job: Job) -> None:
        raise raised

    ended = run(work)
    assert (ended.outcome, ended.retry_after_s) == (outcome, after_s)
    assert ended.error
    assert ended.error["type"] == type(raised).__name__


def test_work_may_be_async() -> None:
    async def work(job: Job) -> object:
        return job.input

    assert run(work, input={"a": None}).result == {"a": None}


def test_a_result_that_cannot_be_stored_fails_the_job() -> None:
    assert run(lambda job: object()).outcome == "failed"


def test_the_test_in_the_documents_passes(tmp_path: Path) -> None:
    page = MarkdownIt().parse((ROOT / "docs" / "work.md").read_text())
    [test] = [part.content for part in page if part.type == "fence" and "knative_jobs.testing" in part.content]
    names: dict[str, object] = {}
    exec(test, names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert tests
    for each in tests:
        each()  # type: ignore[operator]
