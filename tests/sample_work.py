"""Work for the tests: what a job does is written in its `start`, and each beginning is noted in the file EFFECTS."""

import ctypes
import os
import signal
import time
from pathlib import Path

from knative_jobs import Fail, Job, Retry
from knative_jobs.work.api import PROGRESS_SECONDS

LIBC_HOLDING_THE_GIL = ctypes.PyDLL(None)


def work(job: Job) -> object:
    with Path(os.environ["EFFECTS"]).open("a") as effects:
        effects.write(f"{job.id} {job.attempt}\n")
    match str(job.start).split(" "):
        case ["return"]:
            return {"start": job.start, "end": job.end}
        case ["say", *path]:
            print("waiting")
            wait_for(*path or [os.devnull])
            print("gone")
        case ["traceparent"]:
            return job.traceparent
        case ["sleep", seconds]:
            time.sleep(float(seconds))
        case ["hold-the-gil", seconds]:
            LIBC_HOLDING_THE_GIL.usleep(int(float(seconds) * 1e6))
        case ["raise", message]:
            raise ValueError(message)
        case ["raise-until-attempt", number]:
            if job.attempt < int(number):
                raise ValueError("not yet")
        case ["retry-after", seconds]:
            if job.attempt == 1:
                raise Retry(after=float(seconds))
        case ["fail", reason]:
            raise Fail(reason)
        case ["die"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["die-once"]:
            if job.attempt == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        case ["exit"]:
            raise SystemExit(3)
        case ["unserialisable"]:
            return object()
        case ["large"]:
            return "x" * 300_000
        case ["report", seconds]:
            for step in range(int(float(seconds) * 20)):
                job.progress(step / (float(seconds) * 20), f"step {step}")
                time.sleep(0.05)
        case ["wait-for", path, *then]:
            wait_for(path)
            if then == ["raise"]:
                raise ValueError("no more to wait for")
        case ["steps", folder]:
            for step in range(1, 5):
                wait_for(f"{folder}/{step}")
                time.sleep(2 * PROGRESS_SECONDS)
                job.progress(step / 5, f"step {step}")
            wait_for(f"{folder}/5")
        case ["watch-cancelled"]:
            while not job.cancelled:
                time.sleep(0.05)
            raise ValueError("stopped because it was cancelled")
        case ["ignore-cancelled", seconds]:
            time.sleep(float(seconds))
            return "done anyway"
    return None


def wait_for(path: str) -> None:
    """Wait until a test has made this file."""
    while not Path(path).exists():
        time.sleep(0.02)


async def coroutine(job: Job) -> str:
    return f"awaited {job.start}"
