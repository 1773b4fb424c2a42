"""The faults: a plan that a seed decides, and how each is done."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import NamedTuple

import psutil
import redis
import urllib3

from chaos.clients import Book
from chaos.replicated import Replicated
from chaos.system import System, work_process
from harness.proxy import Proxy
from harness.waiting import until

EVERY_SECONDS: dict[str, float] = {
    "kill worker": 6,
    "kill work": 6,
    "kill broker": 20,
    "kill endpoints": 14,
    "kill redis": 14,
    "pause worker": 3,
    "pause broker": 8,
    "cut connections": 3,
    "silence connections": 8,
    "lose answers": 3,
    "slow redis": 10,
    "old events": 2,
}
"""The kinds, and how far apart those of one kind are on average. What is always there needs time to come back: local
mode waits longer each time for one that does not last."""
FAILOVERS = {"kill primary": 16, "pause primary": 24}
"""In the place of what is done to the one Redis, and to the way there."""
_OF_ONE_REDIS = {"kill redis", "cut connections", "silence connections", "lose answers", "slow redis"}
LEASE_SECONDS = 2
PAUSE_SECONDS = (2.5 * LEASE_SECONDS, 4 * LEASE_SECONDS)
"""The shortest and the longest pause of a worker: the sweeper takes its job back meanwhile, and another gets it."""


class Fault(NamedTuple):
    """One fault of the plan."""

    at_s: float
    """When, in seconds from the start."""
    kind: str
    size: float
    """How long, how much or which of several, from 0 to 1."""


def kinds(failover: bool) -> dict[str, float]:
    """Return the kinds of a run, each with how far apart its faults are."""
    if not failover:
        return EVERY_SECONDS
    return {kind: every_s for kind, every_s in EVERY_SECONDS.items() if kind not in _OF_ONE_REDIS} | FAILOVERS


def plan(seed: int, seconds: float, of: dict[str, float] = EVERY_SECONDS) -> list[Fault]:
    """Return the faults of a run in their order: the same for a seed. What each of them hits depends on the moment."""
    faults = []
    for kind, every_s in of.items():
        dice = random.Random(f"{seed} {kind}")  # noqa: S311
        at_s = every_s * dice.uniform(0.3, 1)
        while at_s < seconds:
            faults.append(Fault(round(at_s, 3), kind, round(dice.random(), 3)))
            at_s += every_s * dice.uniform(0.5, 1.5)
    return sorted(faults)


class Faults:
    """Does the faults of a plan. Each kind has a thread, for some last."""

    def __init__(
        self,
        faults: list[Fault],
        system: System,
        proxy: Proxy,
        book: Book,
        connect: Callable[[], AbstractContextManager[redis.Redis]],
        replicated: Replicated | None,
    ) -> None:
        self._system = system
        self._proxy = proxy
        self._book = book
        self._connect = connect
        self._replicated = replicated
        self._over = threading.Event()
        self._http = urllib3.PoolManager(timeout=2, retries=False)
        done = kinds(replicated is not None)
        self.done = Counter(dict.fromkeys(done, 0))
        """How many of each kind met what they were meant for."""
        self._threads = [
            threading.Thread(target=self._run, args=(kind, [fault for fault in faults if fault.kind == kind]))
            for kind in done
        ]

    def start(self) -> None:
        """Begin with the plan."""
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let no other fault begin, and end those that last."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, kind: str, faults: list[Fault]) -> None:
        do: Callable[[float], bool] = {
            "kill worker": self._kill_worker,
            "kill work": self._kill_work,
            "kill broker": lambda _: _kill_group(self._system.broker()),
            "kill endpoints": lambda _: _kill_group(self._system.endpoints()),
            "kill primary": lambda _: bool(self._replicated and self._replicated.kill_primary()),
            "pause primary": lambda _: bool(self._replicated and self._replicated.pause_primary()),
            "kill redis": lambda _: _kill_group(self._system.redis()),
            "pause worker": self._pause_worker,
            "pause broker": self._pause_broker,
            "cut connections": self._cut_connections,
            "silence connections": self._silence_connections,
            "lose answers": self._lose_answers,
            "slow redis": self._slow_redis,
            "old events": self._old_events,
        }[kind]
        for fault in faults:
            if self._over.wait(max(0, self._began + fault.at_s - time.monotonic())):
                return
            self.done[kind] += do(fault.size)

    def _kill_worker(self, which: float) -> bool:
        return _kill_group(_one(self._system.workers(), which))

    def _kill_work(self, which: float) -> bool:
        processes = [process for worker in self._system.workers() if (process := work_process(worker))]
        return _kill_group(_one(processes, which))

    def _pause_worker(self, size: float) -> bool:
        """Stop a worker in the middle of a job, with the process that does the work or without, and let it go on."""
        worker = until(self._worker_at_work, 1)
        if not worker:
            return False
        process = work_process(worker)
        stopped = [worker.pid, *([process.pid] if process and size > 0.5 else [])]
        for group in stopped:
            _signal_group(group, signal.SIGSTOP)
        shortest, longest = PAUSE_SECONDS
        self._over.wait(shortest + size * (longest - shortest))
        for group in stopped:
            _signal_group(group, signal.SIGCONT)
        return True

    def _pause_broker(self, size: float) -> bool:
        """Let no event in or out for up to 3 s, while the workers go on."""
        broker = self._system.broker()
        if not broker or not _signal_group(broker.pid, signal.SIGSTOP):
            return False
        self._over.wait(3 * size)
        return _signal_group(broker.pid, signal.SIGCONT)

    def _worker_at_work(self) -> psutil.Process | None:
        """Return a worker whose job takes long, found by the address in the job's record."""
        with suppress(redis.RedisError), self._connect() as client:
            for job_id in client.zrange("jobs.leases", 0, -1):
                started_at, address = client.hmget(f"job.{job_id!s}", "started-at", "worker-ip")
                if started_at and client.time()[0] - float(started_at) > 0.2:
                    for worker in self._system.workers():
                        with suppress(psutil.Error):
                            if worker.environ()["WORKER_IP"] == address and worker.status() != psutil.STATUS_STOPPED:
                                return worker
        return None

    def _cut_connections(self, _: float) -> bool:
        self._proxy.cut()
        return True

    def _silence_connections(self, _: float) -> bool:
        """Let the open connections go nowhere, as when a machine has failed: nobody closes them."""
        self._proxy.silence()
        return True

    def _lose_answers(self, size: float) -> bool:
        self._proxy.answers_to_lose = 1 + round(4 * size)
        return True

    def _slow_redis(self, size: float) -> bool:
        """For two seconds each answer is late by up to 1.2 s; the functions wait a second for one."""
        self._proxy.delay_s = 1.2 * size / 2
        self._over.wait(2)
        self._proxy.delay_s = 0
        return True

    def _old_events(self, size: float) -> bool:
        """Send the events of earlier jobs again: each twice, in any order, with attempts that were or never will be."""
        address = self._system.broker_url()
        jobs = list(self._book.acknowledged())
        if not address or not jobs:
            return False
        dice = random.Random(size)  # noqa: S311
        again = 2 * dice.choices(jobs, k=10)
        dice.shuffle(again)
        for job_id in again:
            event = {
                "ce-specversion": "1.0",
                "ce-type": "dev.knative-jobs.job.submitted",
                "ce-source": "/jobs",
                "ce-subject": job_id,
                "ce-id": f"{job_id}.{dice.randint(1, 3)}",
                "content-type": "application/json",
            }
            with suppress(urllib3.exceptions.HTTPError):
                self._http.request("POST", address, headers=event, body=b"{}")
        return True


def _one(processes: list[psutil.Process], which: float) -> psutil.Process | None:
    return processes[int(which * len(processes))] if processes else None


def _kill_group(process: psutil.Process | None) -> bool:
    """Kill a process and those of its group, as the end of a container does."""
    return process is not None and _signal_group(process.pid, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> bool:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False
