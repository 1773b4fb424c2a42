"""The instances of one cluster-local function: as many as its requests need, from 0 up to a maximum, and back."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Mapping
from typing import Literal

from local.instance import Instance, at_free_address
from local.log import say
from local.manifests import Service
from local.processes import Processes

IDLE_SECONDS = 30
QUEUE_SECONDS = 300
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30
"""The wait after an instance that could not start; it doubles with each further one."""


class UnavailableError(Exception):
    """No instance can be had for the request."""


class Autoscaler:
    """The instances of one Service, and the requests that wait for one."""

    def __init__(
        self,
        service: Service,
        most: int,
        processes: Processes,
        env: Mapping[str, str],
        grace_s: float,
        idle_s: float = IDLE_SECONDS,
    ) -> None:
        """Begin with no instance.

        Args:
            service: the function.
            most: the greatest number of instances.
            processes: starts and stops them.
            env: their environment, but for what is each one's own.
            grace_s: how long one may take to end after SIGTERM, in seconds.
            idle_s: one without a request for so long is stopped, in seconds.
        """
        self.service = service
        self._most = most
        self._processes = processes
        self._env = env
        self._grace_s = grace_s
        self._idle_s = idle_s
        self._lives: dict[Instance, asyncio.Task[None]] = {}
        self._waiting: deque[asyncio.Future[Instance]] = deque()
        self._closed = False
        self._outdated = asyncio.Event()
        self._pause_s: float = 0
        self._paused_until: float = 0

    async def acquire(self) -> Instance:
        """Return an instance that has room for one more request; `release` must be told when that has ended.

        Raises:
            UnavailableError: none could be started, or all are being stopped.
            TimeoutError: none had room within QUEUE_SECONDS.
        """
        for instance in self._lives:
            if self._has_room(instance):
                instance.open += 1
                return instance
        if self._closed or (not self._lives and self._paused()):
            raise UnavailableError
        place: asyncio.Future[Instance] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._scale_up()
        return await asyncio.wait_for(place, QUEUE_SECONDS)

    def release(self, instance: Instance) -> None:
        """Say that a request has ended."""
        instance.open -= 1
        instance.last_used = time.monotonic()
        self._hand_out(instance)

    def restart(self) -> None:
        """Replace all instances. None of them gets another request, and each has its grace period to end in."""
        self._outdated.set()
        self._outdated = asyncio.Event()
        self._pause_s = self._paused_until = 0
        self._scale_up()

    async def close(self) -> None:
        """Refuse what waits, and stop all instances."""
        self._closed = True
        self._refuse_waiting()
        lives = list(self._lives.values())
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)

    def _has_room(self, instance: Instance) -> bool:
        return instance.ready and instance.open < self.service.concurrency

    def _paused(self) -> bool:
        return time.monotonic() < self._paused_until

    def _hand_out(self, instance: Instance) -> None:
        while self._waiting and self._has_room(instance):
            place = self._waiting.popleft()
            if not place.done():  # else its request has gone
                instance.open += 1
                place.set_result(instance)
        self._scale_up()

    def _refuse_waiting(self) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_exception(UnavailableError())

    def _scale_up(self) -> None:
        if not self._waiting or self._closed or self._paused():
            return
        requests = len(self._waiting) + sum(instance.open for instance in self._lives)
        needed = min(self._most, math.ceil(requests / self.service.concurrency))
        for _ in range(needed - len(self._lives)):
            instance = at_free_address(self._lives)
            self._lives[instance] = asyncio.create_task(self._live(instance))

    async def _live(self, instance: Instance) -> None:
        outdated = asyncio.create_task(self._outdated.wait())
        try:
            process = await instance.start(self.service, self._processes, self._env)
            try:
                await self._serve(instance, process, outdated)
            finally:
                # One that is not ready has nothing to finish, and its server may not heed a SIGTERM yet.
                grace_s, instance.ready = self._grace_s if instance.ready else 0, False
                await self._processes.stop(process, grace_s)
        finally:
            outdated.cancel()
            del self._lives[instance]
        if not self._lives and self._paused():
            self._refuse_waiting()
        self._scale_up()

    async def _serve(
        self, instance: Instance, process: asyncio.subprocess.Process, outdated: asyncio.Task[Literal[True]]
    ) -> None:
        """Give requests to the instance from when it is ready until it ends, has been idle for long, or is outdated."""
        ended = asyncio.create_task(self._processes.ended(process))
        while not ended.done() and not outdated.done() and not await instance.accepts():
            await asyncio.wait([ended, outdated], timeout=0.02, return_when=asyncio.FIRST_COMPLETED)
        ready_at = instance.last_used = time.monotonic()
        instance.ready = not ended.done() and not outdated.done()
        if instance.ready and self._most > 1:
            say(self.service.name, f"{instance.address} is ready")
        self._hand_out(instance)
        while not ended.done():
            if outdated.done():
                return
            idle_s = 0 if instance.open else time.monotonic() - instance.last_used
            if idle_s >= self._idle_s:
                if self._most > 1:
                    say(self.service.name, f"{instance.address} was idle and is stopped")
                return
            timeout_s = self._idle_s - idle_s
            await asyncio.wait([ended, outdated], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        self._pause(lived_s=time.monotonic() - ready_at, code=ended.result())

    def _pause(self, lived_s: float, code: int) -> None:
        """Put off the next start when an instance ended by itself at once, longer each time."""
        self._pause_s = 0 if lived_s > 1 else min(self._pause_s * 2 or PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        self._paused_until = time.monotonic() + self._pause_s
        pause = f", no other is started for {self._pause_s:g} s" if self._pause_s else ""
        say(self.service.name, f"an instance ended by itself, exit code {code}{pause}")
