"""What docs/operate.md says of backups, on real servers: backup.sh and start.sh as the container of Redis runs them."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from local import redis_server
from tests.conftest import NEVER, ROOT, Redis, Start, eventually, free_port, http

SCRIPTS = ROOT / "knative" / "base" / "redis"
JOB = b'{"start": "1", "end": "2"}'


def backup(data: Path, to: Path) -> None:
    with to.open("wb") as tar:
        subprocess.run(["sh", SCRIPTS / "backup.sh"], env={**os.environ, "DATA": str(data)}, stdout=tar, check=True)


class Restored:
    """The Redis of the cluster on a data folder, which start.sh restores first."""

    def __init__(self, folder: Path, data: Path) -> None:
        for name in ("bin", "passwords"):
            (folder / name).mkdir()
        (folder / "bin" / "redis-server").symlink_to(redis_server.binary())
        (folder / "passwords" / "reader").write_text("secret")
        self.port = free_port()
        env = {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PASSWORDS": str(folder / "passwords"),
            "ACL_FILE": str(folder / "users.acl"),
            "DATA": str(data),
        }
        options = ["--port", str(self.port), "--dir", str(data), "--appendonly", "yes", "--save", ""]
        command = ["sh", SCRIPTS / "start.sh", *options]
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
        self.client = redis.Redis(
            port=self.port, username="reader", password="secret", decode_responses=True, retry=NEVER
        )
        eventually(self._is_loaded)

    def _is_loaded(self) -> bool:
        try:
            return self.client.zcard("jobs.submitted") >= 0
        except redis.ConnectionError:  # it is BusyLoadingError, too
            return False

    def ids(self) -> set[str]:
        return set(self.client.zrange("jobs.submitted", 0, -1))

    def stop(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait()


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Redis]:
    folder = tmp_path / "source"
    folder.mkdir()
    server = Redis(folder)
    yield server
    server.kill()


@pytest.fixture
def jobs(start: Start, source: Redis) -> "Submitting":
    return Submitting(start("jobs", **source.settings("jobs")).ready().url)


class Submitting:
    """Submits jobs in a thread, until it is told to stop; `acknowledged` are their ids, with the time of the answer."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.acknowledged: list[tuple[float, str]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Submitting":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            job_id = http.request("POST", self.url, body=JOB).json()["id"]
            self.acknowledged.append((time.monotonic(), job_id))


def test_what_was_acknowledged_before_a_backup_is_in_it_whatever_redis_does_meanwhile(
    jobs: Submitting, source: Redis, tmp_path: Path
) -> None:
    data = tmp_path / "restored"
    data.mkdir()
    with jobs:
        eventually(lambda: len(jobs.acknowledged) > 200)
        rewriting, done = 0, threading.Event()

        def rewrite() -> None:
            nonlocal rewriting
            while not done.is_set():
                if not source.client.info("persistence")["aof_rewrite_in_progress"]:
                    source.client.bgrewriteaof()
                    rewriting += 1

        rewriter = threading.Thread(target=rewrite)
        rewriter.start()
        time.sleep(1.1)  # every second, Redis writes what it holds
        asked_at = time.monotonic()
        before = {job_id for at, job_id in list(jobs.acknowledged) if at < asked_at - 1}
        try:
            threading.Timer(2, done.set).start()  # a copy needs a moment without a rewrite
            backup(source.folder, data / "restore.tar")
        finally:
            done.set()
            rewriter.join()
    assert before
    assert rewriting > 1
    assert not list(source.folder.glob("backup.*")), "it leaves nothing behind"

    restored = Restored(tmp_path, data)
    try:
        ids = restored.ids()
        assert before <= ids
        assert all(restored.client.hgetall(f"job.{job_id}")["status"] == "submitted" for job_id in ids)
        assert not (data / "restore.tar").exists()
    finally:
        restored.stop()


def test_a_backup_takes_the_place_of_what_is_there_which_is_kept(
    jobs: Submitting, source: Redis, tmp_path: Path
) -> None:
    with jobs:
        eventually(lambda: len(jobs.acknowledged) > 5)
    # While it syncs what it wrote before, Redis holds back further writes of its file.
    eventually(lambda: source.client.info("persistence")["aof_buffer_length"] == 0)
    at_backup = set(source.client.zrange("jobs.submitted", 0, -1))
    backup(source.folder, tmp_path / "jobs.tar")
    source.client.flushall()
    source.client.zadd("jobs.submitted", {"newer": 1})
    source.client.shutdown(save=True)
    source.process.wait()
    (tmp_path / "jobs.tar").rename(source.folder / "restore.tar")

    restored = Restored(tmp_path, source.folder)
    assert restored.ids() == at_backup
    restored.stop()
    (source.folder / "before-restore").rename(tmp_path / "appendonlydir")
    (tmp_path / "again").mkdir()
    again = Restored(tmp_path / "again", tmp_path)
    try:
        assert again.ids() == {"newer"}
    finally:
        again.stop()


def test_a_backup_that_is_no_tar_stops_the_start_and_touches_nothing(source: Redis, tmp_path: Path) -> None:
    source.client.zadd("jobs.submitted", {"there": 1})
    source.client.shutdown(save=True)
    source.process.wait()
    (source.folder / "restore.tar").write_text("not a tar")
    before = {path.name for path in (source.folder / "appendonlydir").iterdir()}
    done = subprocess.run(
        ["sh", SCRIPTS / "start.sh"],
        env={**os.environ, "DATA": str(source.folder), "PASSWORDS": str(tmp_path), "ACL_FILE": str(tmp_path / "acl")},
        capture_output=True,
        check=False,
    )
    assert done.returncode
    assert {path.name for path in (source.folder / "appendonlydir").iterdir()} == before


def test_a_backup_that_cannot_be_made_says_so_and_is_no_file_that_passes_for_one(source: Redis, tmp_path: Path) -> None:
    for file in (source.folder / "appendonlydir").glob("*.incr.aof"):
        file.unlink()
    env = {**os.environ, "DATA": str(source.folder), "TRIES": "1"}
    done = subprocess.run(["sh", SCRIPTS / "backup.sh"], env=env, capture_output=True, check=False)
    assert done.returncode == 1
    assert b"No backup was made" in done.stderr
    assert done.stdout == b""
    assert not list(source.folder.glob("backup.*"))
