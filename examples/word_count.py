"""A work function: counts the words in the lines from `start` to `end` of the README. Run it with

JOB_WORK=examples.word_count:count ./scripts/local
"""

from pathlib import Path

from knative_jobs import Fail, Job, Retry

TEXT = Path(__file__).parent.parent / "README.md"


def count(job: Job) -> dict[str, int]:
    """Return how many words the lines have."""
    if not TEXT.exists():
        raise Retry(after=60)  # it may be there in a minute
    lines = TEXT.read_text().splitlines()
    first, last = int(job.start), int(job.end)
    if not 1 <= first <= last <= len(lines):
        raise Fail(f"there are lines 1 to {len(lines)}")  # trying again would not help
    words = 0
    for number in range(first, last + 1):
        job.progress((number - first) / (last - first + 1), f"line {number}")  # here a cancelled job stops
        words += len(lines[number - 1].split())
    return {"words": words}
