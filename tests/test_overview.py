"""The overview: how all jobs stand, and the last hour minute by minute."""

import json
import time
from collections.abc import Iterator

import pytest

from knative_jobs.web import overview
from tests.conftest import Redis, Start, connected
from tests.test_lists import submit

NOTHING = {"submitted": 0, "started": 0, "complete": 0, "failed": 0, "cancelled": 0, "waited": 0}


@pytest.fixture
def as_reader(store: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with connected(store, "reader", monkeypatch):
        yield


@pytest.mark.usefixtures("as_reader")
class TestOverview:
    def test_before_the_first_job_all_is_nought(self) -> None:
        began_at = time.time()
        seen = json.loads(overview.as_json(""))
        assert set(seen["counts"]) == {"submitted", "in progress", "complete", "failed", "cancelled"}
        assert not any(seen["counts"].values())
        assert seen["oldest-waiting-seconds"] == 0
        begins = [minute.pop("at") for minute in seen["minutes"]]
        assert begins == list(range(begins[0], begins[0] + 3600, 60))
        assert began_at - 60 < begins[-1] <= time.time()
        assert seen["minutes"] == [NOTHING] * 60

    def test_it_shows_what_happened(self, endpoint: Start, store: Redis) -> None:
        began_at = time.time()
        done, cancelled = submit(endpoint, 2)
        endpoint("cancel_job").request("POST", f"/cancel_job?job_id={cancelled}")
        time.sleep(0.2)
        assert endpoint("worker").deliver(done) == 204
        submit(endpoint, 3)
        time.sleep(0.1)
        seen = json.loads(overview.as_json(""))
        assert seen["counts"] == {"submitted": 3, "in progress": 0, "complete": 1, "failed": 0, "cancelled": 1}
        assert 0.1 < seen["oldest-waiting-seconds"] < time.time() - began_at
        summed = {what: sum(minute[what] for minute in seen["minutes"]) for what in NOTHING}
        waited = summed.pop("waited")
        assert summed == {"submitted": 5, "started": 1, "complete": 1, "failed": 0, "cancelled": 1}
        assert 0.2 < waited < time.time() - began_at
        past = [minute for minute in seen["minutes"] if minute["at"] + 60 <= began_at]
        assert all({**minute, "at": 0} == {"at": 0, **NOTHING} for minute in past), "it is of just now"

    def test_a_minute_is_from_its_first_event_to_that_of_the_next(self, store: Redis) -> None:
        present = int(time.time() // 60)
        totals = {"submitted": 2, "waited.le.5": 2, "waited.micros": 1_500_000}
        for minute, submitted in [(present - 70, 1), (present - 20, 2), (present - 10, 9)]:
            store.client.hset(f"jobs.minute.{minute}", mapping={**totals, "submitted": submitted})
        store.client.hset("jobs.totals", mapping={**totals, "submitted": 10, "waited.le.10": 1, "restarted": 4})
        seen = [minute for minute in json.loads(overview.as_json(""))["minutes"] if minute["submitted"]]
        assert seen == [
            {"at": (present - 20) * 60, **NOTHING, "submitted": 7},
            {"at": (present - 10) * 60, **NOTHING, "submitted": 1, "started": 1},
        ]
