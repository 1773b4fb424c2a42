"""A work function: counts the words of the pages from `start` to `end` of a text. Run it with

    JOB_WORK=examples.word_count:count ./scripts/local
"""

from knative_jobs import Fail, Job, Retry

PAGES = ["It was a dark and stormy night", "the rain fell in torrents", "except at occasional intervals"]


def count(job: Job) -> dict[str, int]:
    """Return how many words the pages have."""
    first, last = int(job.start), int(job.end)
    if not 1 <= first <= last <= len(PAGES):
        raise Fail(f"there are pages 1 to {len(PAGES)}")  # trying again would not help
    words = 0
    for page in range(first, last + 1):
        job.progress((page - first) / (last + 1 - first), f"page {page}")  # also where a cancelled job stops
        words += len(PAGES[page - 1].split())
    if words == 0:
        raise Retry(after=60)  # the text is not there yet
    return {"words": words}
