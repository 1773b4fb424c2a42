"""Work functions: `count_text` counts the words of a text, and is the work of the kind in `knative/kinds/word-count`:

curl -X POST localhost:5000/jobs -d '{"kind": "word-count", "input": {"text": "to be or not to be"}}'

`count` counts those in the lines from `start` to `end` of the README. Run it with

JOB_WORK=examples.word_count:count ./scripts/local
"""

from collections import Counter
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


def count_text(job: Job) -> dict[str, object]:
    """Return how many words the text of the input has, and how often each of the most frequent ones is there."""
    match job.input:
        case {"text": str(text)}:
            words = text.split()
            return {"words": len(words), "frequent": dict(Counter(words).most_common(3))}
    raise Fail('the input looks like {"text": "to be or not to be"}')
