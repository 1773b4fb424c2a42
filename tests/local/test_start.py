"""How `./scripts/local` starts: in any folder, on both loopback addresses, and what it says when it cannot."""

import os
import resource
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from local import ROOT, ports
from tests.conftest import eventually, http
from tests.local.conftest import Platform

RDB_OF_A_NEWER_REDIS = b"REDIS0099\xfa\x09redis-ver\x0699.0.0"


def refused(data: Path, **limits: object) -> str:
    """The one line that a start with this data folder ends with."""
    said = one_line("--data", str(data), **limits)
    assert str(data) in said
    assert "--data" in said
    return said


def one_line(*options: str, **limits: object) -> str:
    """The one line that a start with these options ends with."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PORT": str(ports.free())}
    command = [sys.executable, "-P", "-m", "local", *options]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False, **limits)  # type: ignore[call-overload]
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Ready on" not in done.stdout
    return str(done.stderr)


def test_a_kind_that_cannot_be_run_is_one_line(tmp_path: Path) -> None:
    kind = tmp_path / "kinds" / "resize"
    kind.mkdir(parents=True)
    (kind / "kind.env").write_text("JOB_KIND=resize\n")
    (kind / "kustomization.yaml").write_text("configMapGenerator: []\n")
    said = one_line("--data", str(tmp_path / "data"), "--kinds", str(kind.parent))
    assert "must take knative/worker/as-service or as-jobsink" in said


class TestDataFolder:
    def test_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_text("mine")
        assert "is not a folder" in refused(file)
        assert file.read_text() == "mine"

    def test_below_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert "Not a directory" in refused(tmp_path / "file" / "data")

    def test_where_nobody_may_write(self) -> None:
        refused(Path("/proc/1/data"))

    def test_a_full_disk(self, tmp_path: Path) -> None:
        """As on one: no process can write more to a file than so many bytes."""

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

        assert "too large" in refused(tmp_path / "data", preexec_fn=limit)

    @pytest.mark.skipif(os.getuid() != 0, reason="only root mounts a file system")
    @pytest.mark.parametrize(("options", "says"), [("size=64k", "No space left"), ("size=8m,ro", "Read-only")])
    def test_a_file_system_that_takes_nothing(self, tmp_path: Path, options: str, says: str) -> None:
        folder = tmp_path / "mounted"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True)
        try:
            assert says in refused(folder)
        finally:
            subprocess.run(["umount", folder], check=True)

    @pytest.mark.parametrize(
        ("files", "says"),
        [
            (
                {
                    "appendonly.aof.manifest": b"file appendonly.aof.1.base.rdb seq 1 type b\n",
                    "appendonly.aof.1.base.rdb": RDB_OF_A_NEWER_REDIS,
                },
                "RDB format version 99",
            ),
            (
                {
                    "appendonly.aof.manifest": b"file appendonly.aof.1.incr.aof seq 1 type i\n",
                    "appendonly.aof.1.incr.aof": b"*2\r\n$6\r\nNEWCMD\r\n$1\r\nx\r\n",
                },
                "NEWCMD",
            ),
        ],
        ids=["its snapshot", "its commands"],
    )
    def test_of_a_newer_redis(self, tmp_path: Path, files: dict[str, bytes], says: str) -> None:
        folder = tmp_path / "data" / "appendonlydir"
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        assert says in refused(tmp_path / "data")
        assert all((folder / name).read_bytes() == content for name, content in files.items()), "left as it was"


def test_no_file_of_the_current_folder_stands_for_a_library(tmp_path: Path) -> None:
    for name in ("redis", "queue", "json", "flask", "knative_jobs", "local", "socket", "aiohttp"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken for a library')\n")
    (tmp_path / "mine.py").write_text("import json, queue, redis\n\ndef work(job):\n    return job.start\n")
    with Platform(tmp_path, JOB_WORK="mine:work") as platform:
        job_id = platform.submit()
        eventually(lambda: platform.status(job_id) == "complete")
        assert "taken for a library" not in platform.said()
        assert platform.stop() == 0


def test_settings_of_another_redis_are_not_for_it(tmp_path: Path) -> None:
    with Platform(tmp_path, REDIS_URL="redis+cluster://elsewhere", REDIS_KEY_PREFIX="{jobs}.") as platform:
        answer = http.request("POST", f"{platform.url}/jobs", body=b'{"start": "1", "end": "2"}')
        assert answer.status == 202, answer.data


class TestIPv6:
    @pytest.fixture
    def here(self) -> None:
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("this machine has no ::1")

    def test_it_listens_there_too(self, here: None, platform: Platform) -> None:
        job = b'{"start": "1", "end": "2"}'
        with socket.create_connection(("::1", platform.port), timeout=30) as connection:
            for _ in range(2):  # over one connection
                request = b"POST /jobs HTTP/1.1\r\nHost: [::1]:%d\r\nContent-Length: %d\r\n\r\n%b"
                connection.sendall(request % (platform.port, len(job), job))
                assert connection.recv(65536).startswith(b"HTTP/1.1 202 ")

    def test_a_stream_comes_through_and_ends_with_the_platform(self, here: None, tmp_path: Path) -> None:
        with Platform(tmp_path, JOB_SECONDS="60", WORKER_GRACE_SECONDS="0") as platform:
            job_id = platform.submit()
            with socket.create_connection(("::1", platform.port), timeout=30) as connection:
                request = f"GET /job_events?job_id={job_id} HTTP/1.1\r\nHost: localhost\r\n\r\n"
                connection.sendall(request.encode())
                said = b""
                while b"in progress" not in said:
                    said += connection.recv(65536)
                stopping = threading.Thread(target=platform.stop)
                stopping.start()
                while chunk := connection.recv(65536):
                    said += chunk
                stopping.join()
            assert "Traceback" not in platform.said()
            assert platform.process.returncode == 0
