"""The supervisor's child processes: starting and stopping them, and printing what they write.

Each is the leader of its own session. So Ctrl-C reaches the supervisor alone, and the processes that a child has
started itself (a server's workers) end with it.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from local.log import say

MAX_LINE_BYTES = 1024 * 1024


class Processes:
    """All children of this supervisor; the reaper knows them too, and outlives a supervisor that is killed."""

    def __init__(self, lock: IO[str]) -> None:
        """Start the reaper, which keeps `lock`, an open locked file, for as long as any child lives."""
        self._lock = lock
        self._groups: set[int] = set()
        self._printing: set[asyncio.Task[None]] = set()
        self._reaper = self._start_reaper()

    async def start(
        self, name: str, command: Iterable[str | Path], env: Mapping[str, str], pass_fds: Iterable[int] = ()
    ) -> asyncio.subprocess.Process:
        """Start a process whose lines are printed under `name`. Without a name it prints them itself."""
        if not name:
            return await self._start(command, env, pass_fds, None)
        # A pipe of our own: the one that asyncio makes would hold up wait() until grandchildren have closed it too.
        ours, theirs = os.pipe()
        try:
            process = await self._start(command, env, pass_fds, theirs)
        finally:
            os.close(theirs)
        task = asyncio.create_task(_print_lines(name, ours))
        self._printing.add(task)
        task.add_done_callback(self._printing.discard)
        return process

    async def ended(self, process: asyncio.subprocess.Process) -> int:
        """Wait for the end of a process, end what it left behind, and return its exit code (-9: signal 9)."""
        code = await process.wait()
        if process.pid in self._groups:
            _signal_group(process.pid, signal.SIGKILL)
            self._groups.discard(process.pid)
            self._tell_reaper()
        return code

    async def stop(self, process: asyncio.subprocess.Process, grace_s: float) -> None:
        """Ask a process to end, and make it when it has not after `grace_s` seconds."""
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(self.ended(process), grace_s)
        except TimeoutError:
            _signal_group(process.pid, signal.SIGKILL)
            await self.ended(process)

    async def close(self) -> None:
        """Print the last lines and end the reaper, which kills whatever has not been stopped."""
        assert self._reaper.stdin  # noqa: S101
        self._reaper.stdin.close()
        self._reaper.wait()
        if self._printing:
            await asyncio.wait(self._printing, timeout=1)

    async def _start(
        self, command: Iterable[str | Path], env: Mapping[str, str], pass_fds: Iterable[int], output: int | None
    ) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=tuple(pass_fds),
        )
        self._groups.add(process.pid)
        self._tell_reaper()
        return process

    def _start_reaper(self) -> subprocess.Popen[str]:
        return subprocess.Popen(  # noqa: S603
            [sys.executable, Path(__file__).with_name("reaper.py")],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
            pass_fds=[self._lock.fileno()],
        )

    def _tell_reaper(self) -> None:
        line = " ".join(map(str, self._groups)) + "\n"
        try:
            _write(self._reaper, line)
        except BrokenPipeError:
            self._reaper.wait()
            self._reaper = self._start_reaper()
            _write(self._reaper, line)


def _write(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin  # noqa: S101
    process.stdin.write(line)
    process.stdin.flush()


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS: a group of zombies is a PermissionError
        os.killpg(group, number)


async def _print_lines(name: str, pipe: int) -> None:
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb")
    )
    try:
        while True:
            try:
                line = await reader.readline()
            except ValueError:
                line = b"(a line too long to show)\n"
            if not line:
                return
            say(name, line.decode(errors="replace").rstrip())
    finally:
        transport.close()
