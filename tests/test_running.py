"""Running the tests: on a machine that lacks things, and until somebody stops them."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import browser
from tests.conftest import PATIENCE_S, ROOT, eventually

TESTS = """
import time
import uuid
from pathlib import Path
import pytest

@pytest.fixture
def noted():
    name = uuid.uuid4()
    Path(__file__).with_name(f"{name}.begun").touch()
    yield
    Path(__file__).with_name(f"{name}.ended").touch()

class TestOne:
    def test_that_fails(self):
        assert 1 == 2

class TestTwo:
    def test_that_waits(self, noted):
        time.sleep(600)

class TestThree:
    def test_that_waits(self, noted):
        time.sleep(600)
"""


def test_the_scripts_need_no_program_but_python(tmp_path: Path) -> None:
    (tmp_path / "python3").symlink_to(sys._base_executable)
    command = [ROOT / "scripts" / "test", "--collect-only", "-q", "tests/local/test_redis_server.py"]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tests collected" in done.stdout
    assert not done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("processes", [0, 2])
def test_a_run_that_is_stopped_says_what_has_failed_and_stops_what_it_has_started(
    tmp_path: Path, number: signal.Signals, processes: int
) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    printed = tmp_path / "printed"
    options = ["-c", "pyproject.toml", "-p", "tests.conftest", "-p", "no:cacheprovider", "-q", "-n", str(processes)]
    with printed.open("w") as out:
        command = [sys.executable, "-m", "pytest", *options, tmp_path]
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
    try:
        eventually(lambda: len(list(tmp_path.glob("*.begun"))) == max(processes, 1))
        eventually(lambda: re.search("^F", printed.read_text(), re.MULTILINE))
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == pytest.ExitCode.INTERRUPTED
        said = printed.read_text()
        assert re.search("^FAILED .*TestOne::test_that_fails - assert 1 == 2", said, re.MULTILINE), said
        assert "1 failed" in said
        assert len(list(tmp_path.glob("*.ended"))) == max(processes, 1)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class TestBrowser:
    @pytest.fixture(autouse=True)
    def none(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """There is none on this machine, and Playwright's cannot be downloaded."""
        monkeypatch.setattr(browser, "PATH", str(tmp_path))
        monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "playwright"))
        monkeypatch.setenv("PLAYWRIGHT_DOWNLOAD_HOST", "http://127.0.0.1:1")

    @pytest.fixture
    def said(self) -> list[str]:
        return []

    def test_where_none_can_be_had_the_run_stops_and_says_what_would_help(
        self, monkeypatch: pytest.MonkeyPatch, said: list[str]
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(pytest.exit.Exception, match="sudo apt install chromium"):
            browser.have_one(said.append)
        assert "playwright install" in said[0]
        assert "ECONNREFUSED" in said[1]

    def test_root_gets_it_from_the_packages_of_the_system(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: list[str]
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(browser, "_starts", browser.program)
        monkeypatch.setattr(browser, "PLAYWRIGHT", ["no-such-program"])
        installer = tmp_path / "apt-get"
        installer.write_text(f'#!/bin/sh\n[ "$1" = update ] || /bin/ln -s {installer} {tmp_path}/chromium\n')
        installer.chmod(0o755)
        browser.have_one(said.append)
        assert [line.partition(": ")[2] for line in said[-2:]] == ["apt-get update", "apt-get install --yes chromium"]
        assert browser.program() == str(tmp_path / "chromium")

    def test_one_that_is_there_is_taken(self, tmp_path: Path, said: list[str]) -> None:
        (tmp_path / "google-chrome").write_text("")
        (tmp_path / "google-chrome").chmod(0o755)
        browser.have_one(said.append)
        assert not said
