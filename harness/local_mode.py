"""Local mode as a process, and the processes that it has started."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

import psutil

from harness.waiting import until
from local import ROOT, ports

START_SECONDS = 100
STOP_SECONDS = 100


class LocalMode:
    """Local mode on a free port, with a data folder that may be there already. Use it in a `with` statement."""

    as_users_do = False
    """Whether it is started with `scripts/local`, in the folder of this project."""

    def __init__(self, data: Path, *options: str, **settings: str) -> None:
        """Start nothing yet.

        Args:
            data: the folder for its data. What it prints is in a file beside that, and it runs in the folder of both.
            options: those of `scripts/local`.
            settings: its environment, over this process's own.
        """
        self.folder = data.parent
        self.log = data.with_name(f"{data.name}.log")
        self.log.touch()
        self.port = ports.free()
        self.url = f"http://127.0.0.1:{self.port}"
        self._runs_in = ROOT if self.as_users_do else self.folder
        command = [str(ROOT / "scripts" / "local")] if self.as_users_do else [sys.executable, "-P", "-m", "local"]
        self._command = [*command, "--data", str(data), *options]
        self._settings = settings if self.as_users_do else {"PYTHONPATH": str(ROOT), **settings}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it is ready.

        Raises:
            RuntimeError: it did not start; the message is what it has printed.
        """
        said = self.said().count("Ready on")
        self.begin()
        until(lambda: self.said().count("Ready on") > said or self.process.poll() is not None, START_SECONDS)
        if self.said().count("Ready on") == said:
            self.stop()
            raise RuntimeError(self.said())

    def begin(self) -> None:
        """Start it, and do not wait."""
        env = {**os.environ, "PORT": str(self.port), "NO_COLOR": "1", **self._settings}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(  # noqa: S603
                self._command,
                cwd=self._runs_in,
                env=env,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def stop(self) -> int:
        """Stop it as Ctrl-C does, so that what runs may finish. Return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()  # its reaper ends the rest
            return self.process.wait()

    def said(self) -> str:
        """Return what it has printed so far."""
        return self.log.read_text()

    @property
    def redis_port(self) -> int:
        """The port of its Redis."""
        return int(re.findall(r"redis-cli -p (\d+)", self.said())[-1])

    def processes(self) -> list[psutil.Process]:
        """Return what it has started, and what that has."""
        return psutil.Process(self.process.pid).children(recursive=True)
