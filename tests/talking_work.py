"""Work for the tests that says something."""

import asyncio
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

from knative_jobs import Job

_log = logging.getLogger("talking")


def work(job: Job) -> None:
    match str(job.start).split(" "):
        case ["say"]:
            print("printed first, Jürgen")
            _log.info("logged %s", "second")
            try:
                raise ValueError("third")
            except ValueError:
                _log.exception("caught")
            print("the last, without the end of a line", end="")
        case ["fail-twice"]:
            print("this is attempt", job.attempt)
            if job.attempt < 3:
                raise ValueError("not yet")
        case ["forge"]:
            known = {"message": "forged", "severity": "INFO", "logger": "a", "exception": "", "by": None}
            for record in (
                known | {"at": "soon"},
                known | {"at": 1e300},
                known | {"by": [[1], 2, 3, 4]},
                {"by": [5]},
                [],
            ):
                print(f"{sys.argv[3]}{json.dumps(record)}")
        case ["die"]:
            print("about to die")
            os.kill(os.getpid(), signal.SIGKILL)
        case ["much", seconds]:
            for number in range(100_000):
                print("line", number)
                if number == 50_000:
                    time.sleep(float(seconds))
        case ["wait", path]:
            print("waiting")
            while not Path(path).exists():
                time.sleep(0.05)
            print("gone")
        case ["report", seconds]:
            for step in range(int(float(seconds) * 10)):
                print("step", step)
                job.progress(step / (float(seconds) * 10))
                time.sleep(0.1)


async def several(job: Job) -> None:
    name = str(job.start).removeprefix("name ")
    print(name, "begins")
    await asyncio.sleep(0.5)
    print(name, "ends")
