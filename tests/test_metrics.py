"""The metrics: what Prometheus reads is what Redis holds, whichever instance tells it."""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from knative_jobs.store import state
from tests.conftest import Function, Redis, Start, connected, eventually

HISTOGRAMS = ("knative_jobs_wait_seconds", "knative_jobs_run_seconds")
Samples = dict[str, float]


def read(function: Function, accept: str = "text/plain", parse: Callable[[str], Any] = plain) -> Samples:
    """The value of each sample, by its name with its labels, but for the kind `default`."""
    answer = function.request("GET", "/metrics", headers={"Accept": accept})
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith(accept.split(";")[0])
    families = list(parse(answer.data.decode()))
    assert all(family.documentation for family in families)
    found = [
        (
            " ".join(
                [s.name, *(v for n, v in sorted(s.labels.items(), reverse=True) if (n, v) != ("kind", "default"))]
            ),
            s.value,
        )
        for f in families
        for s in f.samples
    ]
    assert len(found) == len(dict(found)), "none comes twice"
    return dict(found)


def of_redis(samples: Samples) -> Samples:
    """Takes out what tells of Redis itself, which is never the same."""
    return {name: samples.pop(name) for name in list(samples) if name.startswith("knative_jobs_redis_")}


def test_before_the_first_job_every_metric_is_there_and_nought(endpoint: Start, store: Redis) -> None:
    samples = read(endpoint("metrics"))
    assert len(of_redis(samples)) == 3
    assert len(samples) > 40
    assert set(samples.values()) == {0}


def test_openmetrics_tells_the_same_to_who_accepts_it(endpoint: Start, submit: Callable[[str], str]) -> None:
    submit("return")
    one, other = read(endpoint("metrics")), read(endpoint("metrics"), "application/openmetrics-text", openmetrics)
    age = "knative_jobs_oldest_waiting_seconds"
    assert 0 < one.pop(age) < other.pop(age)
    assert of_redis(one).keys() == of_redis(other).keys()
    assert one == other
    assert one["knative_jobs submitted"] == one["knative_jobs_submitted_total"] == 1


def test_after_a_load_they_are_what_happened_and_what_redis_holds(
    endpoint: Start,
    start: Start,
    worker: Start,
    submit: Callable[[str], str],
    status: Callable[[str], dict[str, Any]],
    store: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    working = worker(JOB_MAX_ATTEMPTS="2", WORKER_DRAIN_SECONDS="0")
    began_at = time.time()

    for _ in range(3):
        assert working.deliver(submit("sleep 0.02")) == 204
    for what, ending in (("fail it", "failed"), ("raise oh", "failed"), ("raise-until-attempt 2", "complete")):
        job_id = submit(what)
        eventually(lambda j=job_id, e=ending: working.deliver(j) == 204 and status(j)["status"] == e)

    done = submit("return")
    assert [working.deliver(done) for _ in range(3)] == [204] * 3

    changed = submit("return")
    for route in ("cancel_job", "retry_job", "cancel_job"):
        assert endpoint(route).request("POST", f"/{route}?job_id={changed}").status in (200, 202)

    lost = submit("return")
    with connected(store, "worker", monkeypatch, job_lease_seconds=0.1):
        held = state.claim(lost, "127.0.0.1")
        assert isinstance(held, state.Claim)
        eventually(lambda: endpoint("sweeper").request("POST").status == 204 and status(lost)["status"] == "submitted")
        assert state.finish(held, "complete", "1")[0] == "refused"
    assert working.deliver(lost) == 204

    submit("waits")
    instances = [read(function) for function in (endpoint("metrics"), start("metrics").ready())]
    ages = [samples.pop("knative_jobs_oldest_waiting_seconds") for samples in instances]
    assert all(of_redis(samples)["knative_jobs_redis_writable"] == 1 for samples in instances)
    assert 0 < ages[0] < ages[1] < time.time() - began_at
    assert instances[0] == instances[1], "any instance tells the same"
    samples = instances[0]

    held_by_redis = {s: store.client.zcard(f"jobs.{s.replace(' ', '-')}") for s in ("submitted", "in progress")}
    held_by_redis |= {s: store.client.zcard(f"jobs.{s}") for s in ("complete", "failed", "cancelled")}
    assert {s: samples[f"knative_jobs {s}"] for s in held_by_redis} == held_by_redis
    assert held_by_redis == {"submitted": 1, "in progress": 0, "complete": 6, "failed": 2, "cancelled": 1}
    assert {name: n for name, n in samples.items() if name.endswith("_total")} == {
        "knative_jobs_submitted_total": 10,
        "knative_jobs_started_total": 11,
        "knative_jobs_completed_total": 6,
        "knative_jobs_failed_total": 2,
        "knative_jobs_cancelled_total": 2,
        "knative_jobs_retried_total": 4,
        "knative_jobs_continued_total": 0,
        "knative_jobs_duplicates_total": 2,
        "knative_jobs_events_dropped_total": 0,
        "knative_jobs_lease_losses_total": 1,
        "knative_jobs_late_finishes_total": 1,
    }
    for name, number in zip(HISTOGRAMS, (8, 6), strict=True):
        buckets = [n for sample, n in samples.items() if sample.startswith(f"{name}_bucket ")]
        assert len(buckets) > 10
        assert all(a <= b for a, b in pairwise(buckets)), "each holds what those below it hold"
        assert buckets[-1] == samples[f"{name}_bucket +Inf"] == samples[f"{name}_count"] == number
    assert 3 * 0.02 < samples["knative_jobs_run_seconds_sum"] < time.time() - began_at
    assert samples["knative_jobs_run_seconds_bucket 0.01"] < 6, "those that slept are over it"


def test_a_redis_that_is_full_answers_a_repeated_event_and_leaves_it_uncounted(
    endpoint: Start, worker: Start, submit: Callable[[str], str], store: Redis
) -> None:
    done, working = submit("return"), worker()
    assert [working.deliver(done) for _ in range(2)] == [204, 204]
    store.client.config_set("maxmemory", 1)
    try:
        assert working.deliver(done) == 204
        assert read(endpoint("metrics"))["knative_jobs_duplicates_total"] == 1
    finally:
        store.client.config_set("maxmemory", 0)
    assert working.deliver(done) == 204
    assert read(endpoint("metrics"))["knative_jobs_duplicates_total"] == 2


def test_the_time_of_the_last_sweep_is_told_by_redis_clock(endpoint: Start, store: Redis) -> None:
    last_sweep = "knative_jobs_last_sweep_timestamp_seconds"
    assert read(endpoint("metrics"))[last_sweep] == 0
    before, _ = store.client.time()
    assert endpoint("sweeper").request("POST").status == 204
    after, _ = store.client.time()
    assert before <= read(endpoint("metrics"))[last_sweep] <= after


@pytest.mark.parametrize(
    ("fault", "mended"),
    [
        (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]),
        (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]),
    ],
    ids=["full", "replica"],
)
def test_a_redis_that_refuses_writes_is_told_of(
    endpoint: Start, store: Redis, fault: list[str], mended: list[str]
) -> None:
    def writable() -> bool:
        return bool(read(endpoint("metrics"))["knative_jobs_redis_writable"])

    assert writable()
    store.client.execute_command(*fault)
    try:
        assert endpoint("jobs").request("POST", "/jobs", body=b'{"start": 1, "end": 2}').status == 503
        assert not writable()
    finally:
        store.client.execute_command(*mended)
    assert endpoint("jobs").request("POST", "/jobs", body=b'{"start": 1, "end": 2}').status == 202
    assert writable()


def test_the_memory_of_redis_is_told_beside_its_limit(endpoint: Start, store: Redis) -> None:
    store.client.config_set("maxmemory", 10**9)
    try:
        samples = read(endpoint("metrics"))
    finally:
        store.client.config_set("maxmemory", 0)
    assert 500_000 < samples["knative_jobs_redis_memory_bytes"] < samples["knative_jobs_redis_memory_limit_bytes"]
    assert samples["knative_jobs_redis_memory_limit_bytes"] == 10**9
