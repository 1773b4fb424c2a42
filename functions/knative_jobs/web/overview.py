"""How all jobs stand, for people who look: the counts of now, and the last hour minute by minute."""

import json

from knative_jobs.store import state

MINUTES = 60
_COUNTED = ("submitted", "started", "complete", "failed", "cancelled")


def as_json() -> str:
    """Return the overview as a JSON object.

    It has `counts` (jobs by status), `oldest-waiting-seconds` (since the submission of the oldest job that waits; 0:
    none does) and `minutes`, the oldest first. Each has `at`, the second of the epoch at which it began; how many jobs
    were `submitted`, `started` (their first attempt), `complete`, `failed` and `cancelled` in it; and `waited`, the
    seconds that the started ones had waited, summed.

    Raises:
        UnavailableError: Redis is away.
    """
    found = state.overview(MINUTES)
    minutes, end = [], found.totals
    for at, begin in reversed(found.minutes):
        begin = begin or end  # nothing happened
        minutes.append({"at": at, **_between(begin, end)})
        end = begin
    seen = {"counts": found.counts, "oldest-waiting-seconds": found.oldest_waiting_s, "minutes": minutes[::-1]}
    return json.dumps(seen, separators=(",", ":"))


def _between(begin: dict[str, int], end: dict[str, int]) -> dict[str, float]:
    """Return what happened from one moment to another, of which these are the totals.

    They may fall where Redis's clock went back, or where somebody removed them: that counts as nothing.
    """
    counted = (*_COUNTED, "restarted", "waited.micros")
    happened = {what: max(0, end.get(what, 0) - begin.get(what, 0)) for what in counted}
    waited_s = happened.pop("waited.micros") / 1e6
    first = max(0, happened["started"] - happened.pop("restarted"))
    return {**happened, "started": first, "waited": waited_s}
