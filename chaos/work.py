"""The work of the jobs. `start` says what to do; each attempt that begins and each effect is a line in a file."""

import os
import time
import uuid
from pathlib import Path

from knative_jobs import Continue, Fail, Job, Retry

FOLDER = "CHAOS_FOLDER"
"""The variable that names the folder of the files."""
BEGUN, EFFECTS = "begun", "effects"
PARTS, PARTS_OF_AN_ATTEMPT = 8, 3
"""Of a job with checkpoints, and how many of them an attempt does before the next one continues."""


def work(job: Job) -> dict[str, object]:
    """Do one attempt. The result tells it from every other attempt."""
    _note(BEGUN, job)
    match str(job.start).split():
        case ["slow", seconds]:
            time.sleep(float(seconds))
        case ["steps", seconds]:
            for step in range(20):
                job.progress(step / 20)
                time.sleep(float(seconds) / 20)
        case ["parts", seconds]:
            before = job.checkpoint_value or 0
            for part in range(before, PARTS):
                if part == before + PARTS_OF_AN_ATTEMPT:
                    raise Continue
                time.sleep(float(seconds) / PARTS)
                job.checkpoint(part + 1)
        case ["raise-once"] if job.attempt == 1:
            raise ValueError("as it was told to")
        case ["raise"]:
            raise ValueError("as it was told to")
        case ["retry"] if job.attempt == 1:
            raise Retry(after=0.5)
        case ["fail"]:
            raise Fail("as it was told to")
    _note(EFFECTS, job)
    return {"attempt": job.attempt, "id": job.id, "kind": job.kind, "nonce": str(uuid.uuid4())}


def _note(name: str, job: Job) -> None:
    """Append one line, whole or not at all."""
    file = os.open(Path(os.environ[FOLDER]) / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{job.id} {job.attempt}\n".encode())
    os.close(file)
