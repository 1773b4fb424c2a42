"""The work of our workers where a measure is of jobs that take a while: it waits."""

import time

from knative_jobs import Cancelled, Job

LOOK_SECONDS = 0.1


def wait(job: Job) -> None:
    """Wait for as many milliseconds as `start` says, or until somebody cancels the job."""
    ends_at = time.monotonic() + float(job.start) / 1000
    while (remaining_s := ends_at - time.monotonic()) > 0:
        time.sleep(min(remaining_s, LOOK_SECONDS))
        if remaining_s > LOOK_SECONDS and job.cancelled:
            raise Cancelled
