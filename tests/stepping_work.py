"""Work in steps, which goes on from its last checkpoint."""

import os
import time
from pathlib import Path

from knative_jobs import Continue, Job

STEPS = 40


def note(job: Job, step: int) -> None:
    with Path(os.environ["EFFECTS"]).open("a") as file:
        file.write(f"{job.attempt} {step}\n")


def steps(job: Job) -> int:
    """Do so many steps in each attempt as `start` says, and wait `end` seconds in each."""
    begin = job.checkpoint_value or 0
    for step in range(begin, STEPS):
        if step == begin + int(job.start):
            raise Continue
        note(job, step)
        time.sleep(float(job.end))
        job.checkpoint(step + 1)
    return STEPS


async def steps_async(job: Job) -> int:
    return steps(job)


def never_further(job: Job) -> None:
    job.checkpoint("always the same")
    raise Continue


def fails_further(job: Job) -> object:
    """Each attempt gets further, and then ends as `start` says."""
    done = (job.checkpoint_value or 0) + 1
    if done == 3:
        return done
    job.checkpoint(done)
    if job.start == "exit":
        os._exit(3)
    raise ValueError("after the checkpoint")


def too_much(job: Job) -> None:
    job.checkpoint("x" * 65 * 1024)


def until_told(job: Job) -> str:
    """Go on until the worker is being stopped, then set a checkpoint; the second attempt tells of the first."""
    if job.checkpoint_value:
        return str(job.checkpoint_value)
    note(job, 0)
    before = job.time_left
    while not job.stopping:
        time.sleep(0.05)
    job.checkpoint(f"{before:.0f} {job.time_left:.0f}")
    raise Continue


def cancelled_then_continues(job: Job) -> None:
    note(job, 0)
    while not job.cancelled:
        time.sleep(0.05)
    raise Continue


def times(job: Job) -> list[float]:
    first = job.time_left
    time.sleep(0.2)
    return [first, job.time_left]
