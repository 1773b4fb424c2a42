"""A process that is always there: started again when it ends by itself."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from local.log import say
from local.processes import Processes

PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5
"""The wait before a start; it doubles while the process does not last LASTED_SECONDS."""
LASTED_SECONDS = 10


class StartError(Exception):
    """The process ended before it was ready. Its own lines say why."""


@dataclass
class Daemon:
    """How a process is started, and when it is ready."""

    processes: Processes
    env: Mapping[str, str]
    name: str
    command: Sequence[str | Path]
    is_ready: Callable[[], Awaitable[bool]]
    pass_fds: Sequence[int] = ()
    prints: bool = False
    """Whether the process says itself whose each of its lines is."""
    _process: asyncio.subprocess.Process | None = field(default=None, init=False)
    _ready: bool = field(default=False, init=False)

    async def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises:
            StartError: it ended before.
        """
        self._ready = False
        self._process = await self.processes.start(
            "" if self.prints else self.name, self.command, self.env, self.pass_fds
        )
        self._ended = asyncio.create_task(self.processes.ended(self._process))
        while not await self.is_ready():
            if self._ended.done():
                raise StartError(f"{self.name} could not start; its lines above say why")
            await asyncio.wait([self._ended], timeout=0.05)
        self._ready = True

    async def keep(self) -> None:
        """Start the process again whenever it ends, for ever."""
        pause_s: float = PAUSE_SECONDS
        while True:
            since = time.monotonic()
            code = await self._ended
            if time.monotonic() - since > LASTED_SECONDS:
                pause_s = PAUSE_SECONDS
            say(self.name, f"ended by itself (exit code {code}) and is started again")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_SECONDS)
            try:
                await self.start()
            except StartError as error:
                say(self.name, str(error))

    async def stop(self, grace_s: float) -> None:
        """End the process; kill it when it has not ended after `grace_s` seconds, or was not ready."""
        if self._process:
            await self.processes.stop(self._process, grace_s if self._ready else 0)
