"""The browser for the tests of the pages: which one, and how to get one where there is none."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

TESTS = "tests/test_dashboard.py"
"""Where those tests are."""
NAMES = ("chromium", "chromium-browser", "google-chrome")
PATH = os.pathsep.join([os.environ.get("PATH", ""), os.defpath, "/usr/sbin", "/sbin"])
"""The system's browser is a shell script, and its installer runs many programs. Where they are, PATH need not say."""
DOWNLOAD_TIMEOUT_MS = "5000"
"""How long Playwright's installer waits for an answer. It tries five times."""
HELP = "The tests of the pages need a browser: sudo apt install chromium, or brew install --cask chromium"
PLAYWRIGHT = [sys.executable, "-m", "playwright"]
SYSTEM = [["apt-get", "update"], ["apt-get", "install", "--yes", "chromium"]]


def program() -> str | None:
    """Return the path of the system's browser, or None where there is only Playwright's own."""
    return next(filter(None, (shutil.which(name, path=PATH) for name in NAMES)), None)


def have_one(say: Callable[[str], None]) -> None:
    """Install a browser unless there is one: Playwright's own; where that cannot be had, as root, the system's.

    Raises:
        pytest.exit.Exception: There is none, and the message says what would help.
    """
    if program() or _starts():
        return
    is_root = os.geteuid() == 0
    if _run([*PLAYWRIGHT, "install", "--only-shell", "chromium"], say):
        if _starts() or (is_root and _run([*PLAYWRIGHT, "install-deps", "chromium"], say) and _starts()):
            return
    elif is_root and all(_run(command, say) for command in SYSTEM) and _starts():
        return
    pytest.exit(HELP, returncode=1)


def _starts() -> bool:
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        try:
            playwright.chromium.launch(executable_path=program(), args=["--no-sandbox"], env=environment()).close()
        except Error:
            return False
    return True


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": PATH}


def _run(command: list[str], say: Callable[[str], None]) -> bool:
    """Return whether a command succeeded; say that it runs, and what errors it reports."""
    say(f"There is no browser: {' '.join(command)}")
    own = {"DEBIAN_FRONTEND": "noninteractive", "PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT": DOWNLOAD_TIMEOUT_MS}
    program = shutil.which(command[0], path=PATH)
    if not program:
        say(f"{command[0]} is not here")
        return False
    done = subprocess.run(
        [program, *command[1:]],
        env={**environment(), **own},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        for line in dict.fromkeys(re.findall(r"^(?:Error|E): .*", done.stdout, re.MULTILINE)):
            say(line)
    return not done.returncode
