"""How all jobs stand, for people who look: the counts of now, and the last hour minute by minute."""

import json
from collections import Counter

from knative_jobs.runtime.job_status import ENDED, Status
from knative_jobs.runtime.settings import settings
from knative_jobs.store import state

MINUTES = 60
_COUNTED = (Status.SUBMITTED, "started", *ENDED)


def as_json(kind: str) -> str:
    """Return the overview of a kind, of all jobs when it is empty, as a JSON object.

    It has `kinds` (those that may be submitted), `counts` (jobs by status), `delayed` (how many of those that are
    submitted are due later), `oldest-waiting-seconds` (for how long the job that is due the longest has been due; 0:
    none is due) and `minutes`, the oldest first. Each has `at`, the second of
    the epoch at which it began; how many jobs were `submitted`, `started` (their first attempt), `complete`, `failed`
    and `cancelled` in it; and `waited`, the seconds that the started ones had waited, summed.

    Raises:
        UnavailableError: Redis is away.
    """
    found = state.overview(MINUTES, kind)
    counts: Counter[str] = Counter()
    happened: list[Counter[str]] = [Counter() for _ in found.begins]
    for standing, then in found.kinds:
        counts.update(standing.counts)
        end = standing.totals
        for minute, begin in zip(reversed(happened), reversed(then), strict=True):
            begin = begin or end  # nothing happened
            minute.update(_between(begin, end))
            end = begin
    seen = {
        "kinds": settings().job_kinds,
        "counts": counts,
        "delayed": sum(standing.delayed for standing, _ in found.kinds),
        "oldest-waiting-seconds": max(standing.oldest_waiting_s for standing, _ in found.kinds),
        "minutes": [_minute(*each) for each in zip(found.begins, happened, strict=True)],
    }
    return json.dumps(seen, separators=(",", ":"))


def _minute(at: int, happened: Counter[str]) -> dict[str, float]:
    return {"at": at} | {what: happened[what] for what in _COUNTED} | {"waited": happened["waited.micros"] / 1e6}


def _between(begin: dict[str, int], end: dict[str, int]) -> dict[str, int]:
    """Return what happened from one moment to another, of which these are the totals.

    They may fall where Redis's clock went back, or where somebody removed them: that counts as nothing.
    """
    counted = (*_COUNTED, "restarted", "waited.micros")
    happened = {what: max(0, end.get(what, 0) - begin.get(what, 0)) for what in counted}
    return happened | {"started": max(0, happened["started"] - happened["restarted"])}
