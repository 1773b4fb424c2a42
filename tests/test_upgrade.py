"""A new version starts on the data of an older one, jobs in flight among them, and loses none.

`tests/states` has what an older version left in Redis: its keys, and for each job what `/jobs_status` said of it. Each
is made by the functions of that version, and never changed by hand.
"""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from knative_jobs.events.emit import SUBMITTED
from tests.conftest import Broker, Redis, Start, eventually

STATES = sorted((Path(__file__).parent / "states").glob("*.json"))
Record = dict[str, Any]


@pytest.fixture(params=STATES, ids=lambda path: path.stem)
def told(request: pytest.FixtureRequest, store: Redis) -> dict[str, Record]:
    """Put the keys of a version into Redis. Return what it told of each job, by a name for it."""
    state = json.loads(request.param.read_text())
    for key, kept in state["keys"].items():
        value = kept["value"]
        match kept["type"]:
            case "hash":
                store.client.hset(key, mapping=value)
            case "string":
                store.client.set(key, value)
            case "zset":
                store.client.zadd(key, dict(value))
            case "set":
                store.client.sadd(key, *value)
        if kept["ttl"] > 0:
            store.client.expire(key, kept["ttl"])
    return dict(state["jobs"])


def test_each_job_is_told_of_as_before(endpoint: Start, status, told: dict[str, Record]) -> None:
    for job in told.values():
        assert status(job["id"]) == job
    ids = {name: job["id"] for name, job in told.items()}
    for listing, name in (
        ("completed_jobs", "complete"),
        ("failed_jobs", "failed"),
        ("cancelled_jobs", "cancelled"),
        ("inprogress_jobs", "in progress"),
    ):
        assert [job["id"] for job in endpoint(listing).request("GET", f"/{listing}").json()] == [ids[name]]
    waiting = endpoint("incomplete_jobs").request("GET", "/incomplete_jobs?kind=default").json()
    assert {job["id"] for job in waiting} == set(ids.values()) - {ids["complete"]}


def test_jobs_that_waited_or_ran_are_done_once_and_all_ends_are_announced(
    status, worker: Start, start: Start, told: dict[str, Record], broker: Broker, store: Redis
) -> None:
    open_ = {name: job for name, job in told.items() if job["status"] in ("submitted", "in progress")}
    sweeper = start("sweeper", K_SINK=broker.url, SWEEP_SECONDS="0", JOB_BACKOFF_SECONDS="0.2").ready()
    function = worker(K_SINK=broker.url)
    for job_id in store.client.zrange("jobs.outbox", 0, -1):
        store.client.zadd("jobs.outbox", {job_id: time.time()})  # its visibility timeout is over by now

    def all_done() -> bool:
        sweeper.request("POST")
        function.deliver(told["waits"]["id"])
        return all(status(job["id"])["status"] == "complete" for job in open_.values())

    eventually(all_done)
    attempts = {name: status(job["id"])["attempt"] for name, job in open_.items()}
    assert attempts == {name: 2 if name in ("tried once", "in progress") else 1 for name in open_}
    ended = {job["id"] for name, job in told.items() if name != "cancelled"}
    eventually(lambda: ended <= {event["ce-subject"] for event, _ in broker.events if event["ce-type"] != SUBMITTED})


def test_an_idempotency_key_still_stands_for_its_jobs(endpoint: Start, told: dict[str, Record]) -> None:
    body = '[{"start": "return", "end": 1}, {"start": "return", "end": "two"}]'
    again = endpoint("jobs").request("POST", "/jobs", body=body, headers={"Idempotency-Key": "order-7"})
    assert (again.status, again.headers["Idempotency-Replayed"]) == (202, "true")
    assert [job["id"] for job in again.json()] == [told[f"{name} of a batch"]["id"] for name in ("first", "second")]


def test_jobs_that_had_ended_can_be_tried_again_and_those_that_run_cancelled(
    endpoint: Start, told: dict[str, Record]
) -> None:
    for name in ("failed", "cancelled"):
        answer = endpoint("retry_job").request("POST", f"/retry_job?job_id={told[name]['id']}")
        assert (answer.status, answer.json()["status"]) == (202, "submitted")
    for name, status in (("in progress", 202), ("waits", 200)):
        assert endpoint("cancel_job").request("POST", f"/cancel_job?job_id={told[name]['id']}").status == status


def test_the_sweeper_finds_nothing_to_mend(start: Start, told: dict[str, Record], store: Redis) -> None:
    sweeper = start("sweeper", SWEEP_SECONDS="0").ready()
    for _ in range(5):
        assert sweeper.request("POST").status == 204
    assert "did not agree" not in sweeper.log()
    assert "are gone" not in sweeper.log()
    assert {job["id"] for job in told.values()} == {key.removeprefix("job.") for key in store.client.keys("job.*")}


def test_a_new_job_comes_after_the_old_ones(endpoint: Start, told: dict[str, Record]) -> None:
    new = endpoint("jobs").request("POST", "/jobs", body='{"start": 1, "end": 2}').json()["id"]
    assert endpoint("incomplete_jobs").request("GET", "/incomplete_jobs").json()[-1]["id"] == new
    counts = endpoint("dashboard").request("GET", "/dashboard/overview").json()["counts"]
    assert sum(counts.values()) == len(told) + 1
