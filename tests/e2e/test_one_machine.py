"""What `./scripts/local` promises beyond the contract: it is the whole of it on one machine, and it can be killed."""

import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.conftest import PATIENCE_S, eventually
from tests.e2e.conftest import Api, one_machine
from tests.stepping_work import STEPS

SAMPLE_WORK = str(Path(__file__).parent.parent)


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(tmp_path / "data")


def descendants(local: one_machine) -> dict[psutil.Process, str]:
    """All processes of it but the supervisor, with their commands."""
    found = {}
    for process in psutil.Process(local.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found[process] = " ".join(process.cmdline())
    return found


def working(data: str, work: str, effects: Path) -> one_machine:
    settings = {"JOB_WORK": work, "EFFECTS": str(effects), "PYTHONPATH": SAMPLE_WORK}
    return one_machine(data, JOB_LEASE_SECONDS="2", **settings)


def kill_workers(local: one_machine) -> None:
    servers = [process for process, command in descendants(local).items() if "granian" in command]
    workers = [server for server in servers if server.environ().get("FUNCTION_TARGET") == "worker"]
    assert workers
    for worker in workers:
        worker.kill()


def test_workers_come_for_work_up_to_the_maximum(data: str, tmp_path: Path) -> None:
    work = {"JOB_WORK": "sample_work:work", "EFFECTS": str(tmp_path / "effects"), "PYTHONPATH": SAMPLE_WORK}
    with one_machine(data, "--max-workers", "3", **work) as local:
        api = Api(local.url)
        assert not [command for command in descendants(local).values() if "knative_jobs.work.process" in command], (
            "none when idle"
        )
        with ThreadPoolExecutor() as threads:
            ids = [job["id"] for job in threads.map(lambda i: api.submit(f"wait-for {tmp_path}/go", i), range(12))]
        eventually(lambda: len(api.ids("inprogress_jobs")) == 3)
        (tmp_path / "go").touch()
        split = Counter(api.wait_for(job_id, "complete")["worker-ip"] for job_id in ids)
        assert set(split) == {"127.0.0.1", "127.0.0.2", "127.0.0.3"}


def test_a_killed_workers_job_is_done_by_another(data: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    with working(data, "sample_work:work", effects) as local:
        api = Api(local.url)
        job_id = api.submit(f"wait-for {tmp_path}/go")["id"]
        eventually(effects.exists)
        kill_workers(local)
        (tmp_path / "go").touch()
        assert api.wait_for(job_id, "complete")["attempt"] == 2
        assert Counter(effects.read_text().split()[::2]) == {job_id: 2}


def test_work_with_checkpoints_goes_on_where_a_killed_worker_was(data: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    with working(data, "stepping_work:steps", effects) as local:
        api = Api(local.url)
        job_id = api.submit("5", "0.1")["id"]
        for checkpoint in (8, 20):
            eventually(lambda checkpoint=checkpoint: int(api.status(job_id).get("checkpoint", 0)) >= checkpoint)
            kill_workers(local)
        done = api.wait_for(job_id, "complete")
    assert (done["result"], done["continued"] > 0) == (STEPS, True)
    steps = [int(line.split()[1]) for line in effects.read_text().splitlines()]
    assert set(steps) == set(range(STEPS))
    assert len(steps) < 2 * STEPS, "it did not begin anew"


def test_everything_killed_and_started_again_completes_all_that_was_acknowledged(data: str) -> None:
    settings = {"JOB_SECONDS": "0.3", "JOB_LEASE_SECONDS": "2", "APPENDFSYNC": "always"}
    with one_machine(data, **settings) as local:
        api = Api(local.url)
        ids = [api.submit(i, i)["id"] for i in range(20)]
        eventually(lambda: api.ids("completed_jobs"))
        for process in [psutil.Process(local.process.pid), *descendants(local)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        local.process.wait()
    with one_machine(data, **settings) as local:
        api = Api(local.url)
        assert all(api.wait_for(job_id, "complete")["status"] == "complete" for job_id in ids)
        assert sorted(api.ids("completed_jobs")) == sorted(ids)


def test_jobs_survive_a_broker_that_is_killed(data: str) -> None:
    with one_machine(data, JOB_SECONDS="0.1") as local:
        api = Api(local.url)
        [broker] = [process for process, command in descendants(local).items() if "local.knative" in command]
        broker.kill()
        ids = [api.submit(i, i)["id"] for i in range(10)]
        assert {api.wait_for(job_id, "complete")["status"] for job_id in ids} == {"complete"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_all_of_it_and_a_restart_has_lost_nothing(data: str, number: signal.Signals) -> None:
    with one_machine(data, JOB_SECONDS="0.2", WORKER_GRACE_SECONDS="0.1") as local:
        api = Api(local.url)
        done, running = api.submit()["id"], ""
        api.wait_for(done, "complete")
        running = api.submit()["id"]
        processes = descendants(local)
        local.process.send_signal(number)
        assert local.process.wait(PATIENCE_S) == 0
        eventually(lambda: not any(process.is_running() for process in processes))
        assert "Traceback" not in local.said()
    with one_machine(data, JOB_SECONDS="0.2") as local:
        api = Api(local.url)
        assert api.status(done)["status"] == "complete"
        api.wait_for(running, "complete")
