"""Long jobs: with a JobSink as subscriber, every due job gets a process, whatever became of the one before.

The Broker and the JobSink are those of local mode. No sweeper runs but where a test calls it.
"""

import asyncio
import gc
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web

from local import activator, manifests
from local.broker import Broker
from local.jobsink import JobSink
from local.processes import Processes
from tests.conftest import ROOT, Function, Redis, Start, eventually, free_port
from tests.e2e.conftest import Api, one_machine

# aiohttp does not close a connection that it accepted in the moment when its server ends.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

LONG_JOBS = (manifests.BASE, manifests.COMPONENTS / "long-jobs")
PENDING = 4
STEPS = (("started-at", 1), ("finished-at", -1))
"""What each moment in a record means for the number of jobs in progress."""


class Sink:
    """A Broker whose Trigger's subscriber is a JobSink, on a loop in a thread of its own."""

    def __init__(self, folder: Path, store: Redis, most: int = 3, **settings: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}/"
        self.settings = {"K_SINK": self.url, "JOBSINK_KINDS": "default", "JOBSINK_MAX_PENDING": str(PENDING)}
        self.ids: list[str] = []
        self.env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT / 'functions'}{os.pathsep}{ROOT / 'tests'}",
            "JOB_WORK": "sample_work:work",
            "EFFECTS": str(folder / "effects"),
            **store.settings("worker"),
            **self.settings,
            **settings,
        }
        self._folder, self._most = folder, most
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve()])
        self._thread.start()
        self._ready.wait()

    async def _serve(self) -> None:
        (declared,) = manifests.job_sinks(*LONG_JOBS)
        with (self._folder / "lock").open("w") as lock:
            processes = Processes(lock)
            # No pod is started a second time by Kubernetes: what is started again is announced again.
            self.sink = JobSink(declared._replace(backoff_limit=0), self._most, processes, self.env, 5, self._folder)
            broker = Broker(activator.posting({}, {declared.name: self.sink}), manifests.triggers(*LONG_JOBS))

            async def receive(request: web.BaseRequest) -> web.Response:
                if request.headers["ce-type"].endswith(".submitted"):
                    self.ids.append(request.headers["ce-id"])
                return await broker.receive(request)

            runner = web.ServerRunner(web.Server(receive, access_log=None), shutdown_timeout=1)
            await runner.setup()
            port = int(self.url.rpartition(":")[2].strip("/"))
            await web.TCPSite(runner, "127.0.0.1", port).start()
            self._processes = processes
            self._ready.set()
            await self._stop.wait()
            await runner.cleanup()
            await self.sink.close()
            await processes.close()

    def kill(self, number: signal.Signals) -> None:
        """Send a signal to each process that was started for an event, and what that has started, or to it alone."""
        for group in tuple(self._processes._groups):
            with suppress(ProcessLookupError):
                (os.killpg if number == signal.SIGKILL else os.kill)(group, number)

    def idle(self) -> bool:
        return not self._processes._groups

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()
        gc.collect()  # so that a connection which aiohttp left open is told of here


@pytest.fixture
def sink(tmp_path: Path, store: Redis) -> Iterator[Callable[..., Sink]]:
    sinks: list[Sink] = []

    def sink(**given: str) -> Sink:
        sinks.append(Sink(tmp_path, store, **given))
        return sinks[-1]

    yield sink
    for started in sinks:
        started.stop()


@pytest.fixture
def status(endpoint: Start) -> Callable[[str], dict[str, object]]:
    def status(job_id: str) -> dict[str, object]:
        return dict(endpoint("jobs_status").request("GET", f"/jobs_status?job_id={job_id}").json())

    return status


def submit(jobs: Function, *starts: str) -> list[str]:
    answer = jobs.request("POST", "/jobs", body=json.dumps([{"start": start, "end": 2} for start in starts]))
    return [job["id"] for job in answer.json()]


def passes(store: Redis, seconds: float) -> None:
    """Let so much time pass since jobs were announced."""
    for job_id, noted in store.client.hgetall("jobs.announced").items():
        due, times, last = noted.split()
        store.client.hset("jobs.announced", job_id, f"{due} {times} {float(last) - seconds:.6f}")


class TestEachJobIsAnnounced:
    def test_a_burst_is_done_by_processes_of_one_job_each_without_the_sweeper(
        self, sink, start: Start, store: Redis
    ) -> None:
        broker = sink()
        jobs = start("jobs", **broker.settings).ready()
        ids = submit(jobs, *["return"] * 10 * PENDING)
        eventually(lambda: store.client.zcard("jobs.complete") == len(ids), within_s=90)
        assert len({event_id.split(".")[0] for event_id in broker.ids}) == len(broker.ids) == len(ids), "one event each"

    def test_no_more_are_announced_than_may_be_pending(self, start: Start, sink, store: Redis) -> None:
        broker = sink(most=1)
        jobs = start("jobs", **broker.settings).ready()
        submit(jobs, *["sleep 60"] * 3 * PENDING)
        eventually(lambda: store.client.zcard("jobs.in-progress") == 1 and len(broker.ids) == PENDING + 1)
        for _ in range(3):
            start("sweeper", **broker.settings, SWEEP_SECONDS="0").ready().request("POST")
        assert len(broker.ids) == PENDING + 1, "one has made room for another; the rest wait"

    def test_with_job_max_running_only_what_may_begin_gets_a_process(self, start: Start, sink, store: Redis) -> None:
        broker = sink(JOB_MAX_RUNNING="2")
        jobs = start("jobs", **broker.settings, JOB_MAX_RUNNING="2").ready()
        ids = submit(jobs, *["sleep 0.3"] * 3 * PENDING)
        eventually(lambda: store.client.zcard("jobs.complete") == len(ids), within_s=90)
        assert len(broker.ids) == len(ids), "no process found that it may not begin, and none was missing"
        changes = [(store.record(job_id)[at], step) for job_id in ids for at, step in STEPS]
        running = list(itertools.accumulate(step for _, step in sorted(changes)))
        assert max(running) == 2

    def test_one_that_nobody_claims_is_announced_again_at_doubling_intervals(
        self, start: Start, sink, store: Redis
    ) -> None:
        broker = sink(most=0)
        jobs = start("jobs", **broker.settings).ready()
        sweeper = start("sweeper", **broker.settings, SWEEP_SECONDS="0").ready()
        submit(jobs, "return")
        eventually(lambda: len(broker.ids) == 1)
        for seconds, announced in ((29, 1), (2, 2), (31, 2), (30, 3), (100, 3), (21, 4)):
            passes(store, seconds)
            assert sweeper.request("POST").status == 204
            eventually(lambda announced=announced: len(broker.ids) >= announced)
            time.sleep(0.3)
            assert len(broker.ids) == announced
        assert len(set(broker.ids)) == len(broker.ids)


class TestADueJobIsStartedWhateverBecameOfTheOneBefore:
    """The JobSink remembers each event for ten minutes; in these tests none of them may stand in the way."""

    def test_a_cancelled_job_that_is_retried(self, start: Start, sink, status) -> None:
        broker = sink()
        jobs, cancel, retry = (start(f, **broker.settings).ready() for f in ("jobs", "cancel_job", "retry_job"))
        (job_id,) = submit(jobs, "return")
        assert cancel.request("POST", f"/cancel_job?job_id={job_id}").status == 200
        eventually(lambda: broker.ids and broker.idle())
        assert retry.request("POST", f"/retry_job?job_id={job_id}").status == 202
        eventually(lambda: status(job_id)["status"] == "complete")
        assert status(job_id)["attempt"] == 1

    def test_a_job_that_was_handed_back(self, start: Start, sink, status) -> None:
        broker = sink(WORKER_GRACE_SECONDS="0")
        (job_id,) = submit(start("jobs", **broker.settings).ready(), "sleep 3")
        eventually(lambda: status(job_id)["status"] == "in progress")
        broker.kill(signal.SIGTERM)
        eventually(lambda: status(job_id)["status"] == "complete")
        assert status(job_id)["attempt"] == 2
        assert "failures" not in status(job_id)

    def test_a_job_whose_lease_ran_out(self, start: Start, sink, status) -> None:
        broker = sink(JOB_LEASE_SECONDS="1")
        (job_id,) = submit(start("jobs", **broker.settings).ready(), "sleep 3")
        eventually(lambda: status(job_id)["status"] == "in progress")
        broker.kill(signal.SIGKILL)
        sweeper = start("sweeper", **broker.settings, SWEEP_SECONDS="0").ready()
        eventually(lambda: sweeper.request("POST").status == 204 and status(job_id)["status"] == "complete")
        assert (status(job_id)["attempt"], status(job_id)["failures"]) == (2, 1)

    def test_a_job_in_its_backoff(self, start: Start, sink, status) -> None:
        broker = sink(JOB_BACKOFF_SECONDS="1")
        (job_id,) = submit(start("jobs", **broker.settings).ready(), "raise-until-attempt 2")
        sweeper = start("sweeper", **broker.settings, SWEEP_SECONDS="0").ready()
        eventually(lambda: sweeper.request("POST").status == 204 and status(job_id)["status"] == "complete")

    @pytest.mark.parametrize("mended_by", ["its dead letter", "half a minute"])
    def test_a_job_whose_process_failed_before_it_claimed(
        self, start: Start, sink, status, store: Redis, mended_by: str
    ) -> None:
        broker = sink()
        redis_url = broker.env["REDIS_URL"]
        broker.env["REDIS_URL"] = "redis://127.0.0.1:9/0"
        (job_id,) = submit(start("jobs", **broker.settings).ready(), "return")
        eventually(lambda: broker.ids and not broker.idle())
        eventually(broker.idle)
        broker.env["REDIS_URL"] = redis_url
        sweeper = start("sweeper", **broker.settings, SWEEP_SECONDS="0").ready()
        assert sweeper.request("POST").status == 204
        time.sleep(0.5)
        assert len(broker.ids) == 1, "its pod may still come"
        if mended_by == "its dead letter":
            assert start("dead_letter", JOB_BACKOFF_SECONDS="0.5").ready().deliver(job_id) == 204
        else:
            passes(store, 31)
        eventually(lambda: sweeper.request("POST").status == 204 and status(job_id)["status"] == "complete")


def test_a_process_whose_job_another_has_does_the_oldest_that_is_due(
    start: Start, sink, status, store: Redis, tmp_path: Path
) -> None:
    jobs = start("jobs").ready()
    other_id, job_id = submit(jobs, "return", "return")
    assert start("cancel_job").ready().request("POST", f"/cancel_job?job_id={job_id}").status == 200
    event = {"specversion": "1.0", "type": "dev.knative-jobs.job.submitted", "source": "/jobs", "id": "1"}
    (tmp_path / "event").write_text(json.dumps(event | {"subject": job_id, "data": {}}))
    command = ["-m", "knative_jobs.server.jobsink", str(tmp_path / "event")]
    assert start("worker", command=command, JOB_SECONDS="0").process.wait(20) == 0
    assert status(other_id)["status"] == "complete"


def test_local_mode_runs_them_with_the_component(tmp_path: Path) -> None:
    with one_machine(str(tmp_path / "data"), "--component", "long-jobs", JOB_SECONDS="0") as local:
        api = Api(local.url)
        ids = [api.submit(i, i)["id"] for i in range(3)]
        assert {api.wait_for(job_id, "complete")["worker-ip"] for job_id in ids} <= {"127.0.0.1", "127.0.0.2"}
