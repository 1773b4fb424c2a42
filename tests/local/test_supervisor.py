"""The whole platform as one command: what it keeps up, what it survives, how it ends."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
import urllib3

from local import ROOT, redis_server
from tests.conftest import eventually, http
from tests.local.conftest import Platform

WAIT_FOR_A_FILE = """
import os, time

def work(job):
    while job.start and not os.path.exists(job.start):
        time.sleep(0.02)
"""
PARTS = (redis_server.binary().name, "local.knative", "endpoints.py")


def test_a_submitted_job_is_done_by_a_worker_that_nobody_had_to_start(platform: Platform) -> None:
    job_id = platform.submit()
    eventually(lambda: platform.status(job_id) == "complete")
    said = platform.said()
    assert f"curl -X POST localhost:{platform.port}/jobs" in said
    redis_port = int(said.split("redis-cli -p ")[1].split()[0])
    with redis.Redis(port=redis_port, decode_responses=True) as client:
        record = client.hgetall(f"job.{job_id}")
    fields = ("id", "start", "end", "status", "worker-ip")
    assert [record[field] for field in fields] == [job_id, "1", "2", "complete", "127.0.0.1"]
    eventually(lambda: f"worker | INFO job {job_id} attempt 1: complete" in platform.said())


@pytest.mark.parametrize("drain_seconds", ["30", "0.1"])
def test_workers_share_a_long_queue_of_jobs_that_take_no_time(tmp_path: Path, drain_seconds: str) -> None:
    (tmp_path / "mine.py").write_text(WAIT_FOR_A_FILE)
    with Platform(tmp_path, JOB_WORK="mine:work", WORKER_DRAIN_SECONDS=drain_seconds) as platform:

        def submit(start: str, count: int) -> None:
            batch = json.dumps([{"start": start, "end": 2}] * count)
            assert http.request("POST", f"{platform.url}/jobs", body=batch).status == 202

        submit(f"{tmp_path}/go", 2)
        eventually(lambda: len(platform.get("/inprogress_jobs").json()) == 2)  # both workers are there
        for _ in range(4):
            submit("", 1000)
        (tmp_path / "go").touch()
        eventually(lambda: not platform.get("/incomplete_jobs").json())
        done_by = Counter(job["worker-ip"] for job in platform.get("/completed_jobs").json())
        assert min(done_by["127.0.0.1"], done_by["127.0.0.2"]) > 400, done_by
        assert platform.stop() == 0


def test_an_unknown_path_gets_the_list_of_the_known(platform: Platform) -> None:
    for path in ("/nobody", "/jobs/1"):
        answer = platform.get(path)
        assert answer.status == 404
        assert answer.headers["Content-Type"] == "application/problem+json"
        problem = answer.json()
        assert (problem["status"], problem["title"]) == (404, "Not Found")
        for route in (
            "/jobs",
            "/jobs_status",
            "/job_status",
            "/completed_jobs",
            "/incomplete_jobs",
            "/inprogress_jobs",
        ):
            assert route in problem["detail"]
    for hidden in ("worker", "sweeper", "dead_letter", "job_requests"):
        assert http.request("POST", f"{platform.url}/{hidden}").status == 404
    assert platform.get("/completed_jobs/").status == 200


def test_a_name_that_may_belong_to_a_page_of_the_web_gets_nothing(platform: Platform) -> None:
    def ask(host: str) -> Any:
        return http.request("GET", f"{platform.url}/completed_jobs", headers={"Host": f"{host}:{platform.port}"})

    for host in ("localhost", "LOCALHOST", "jobs.localhost", "host.docker.internal", "127.0.0.1", "[::1]"):
        assert ask(host).status == 200
    for host in ("evil.example", "evil.example.", "localhost.evil.example", "evil-localhost", "127.0.0.1.evil.example"):
        assert ask(host).status == 421
        assert "API_TOKENS" in ask(host).json()["detail"]


def test_what_dies_is_started_again_at_the_same_address(platform: Platform) -> None:
    before = {part: platform.child(part) for part in PARTS}
    for pid in before.values():
        assert pid
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: all(platform.child(part) not in (None, pid) for part, pid in before.items()))
    eventually(lambda: "/jobs" in platform.said() and platform.said().count("is started again") == 3)

    def accepted() -> str | None:
        try:
            return platform.submit()
        except (AssertionError, urllib3.exceptions.HTTPError):
            return None

    job_id = eventually(accepted)
    eventually(lambda: platform.status(str(job_id)) == "complete")


def test_a_killed_supervisor_takes_all_with_it_and_the_next_starts_at_once(tmp_path: Path) -> None:
    with Platform(tmp_path, JOB_SECONDS="600", JOB_LEASE_SECONDS="600", WORKER_GRACE_SECONDS="0") as platform:
        job_id = platform.submit()
        eventually(lambda: platform.status(job_id) == "in progress")
        processes = platform.processes()
        platform.process.kill()
        platform.process.wait()
        platform.start()
        assert not [process for process in processes if lives(process)]
        assert platform.status(job_id) == "in progress"
        assert platform.stop() == 0


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    with Platform(tmp_path, JOB_WORK="nowhere:work") as platform:
        job_id = platform.submit()
        eventually(lambda: "nowhere" in platform.said() and "worker | an instance ended by itself" in platform.said())
        assert platform.status(job_id) == "submitted"
        assert platform.stop() == 0


def test_the_users_work_is_found_in_the_folder_where_the_user_stands(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def work(job):\n    return job.start + job.end\n")
    with Platform(tmp_path, JOB_WORK="mine:work") as platform:
        job_id = platform.submit()
        eventually(lambda: platform.status(job_id) == "complete")
        assert platform.get(f"/jobs_status?job_id={job_id}").json()["result"] == "12"
        assert platform.stop() == 0


def test_a_taken_port_and_a_taken_folder_are_told(platform: Platform) -> None:
    def start(port: int, data: Path) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PORT": str(port)}
        command = [sys.executable, "-P", "-m", "local", "--data", str(data)]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    second = start(platform.port, platform.folder / "other")
    assert second.returncode == 1
    assert f"Port {platform.port} is taken" in second.stderr
    assert f"PORT={platform.port + 1}" in second.stderr
    third = start(platform.port + 1, platform.folder / "data")
    assert third.returncode == 1
    assert "--data" in third.stderr
