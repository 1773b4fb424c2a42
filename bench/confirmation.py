"""What it costs to acknowledge only what a replica has, or the disk. Of `ours` alone."""

import sys
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

from bench import load, measures, running
from bench.measures import MANY, Effort
from bench.report import ALWAYS, CONFIRMATION, EVERYSEC, NOTHING, ONE_JOB, REPLICA, SUBMIT, Sample
from bench.running import SUBMISSION

WAITED_FOR = {
    NOTHING: {},
    REPLICA: {"REDIS_WAIT_REPLICAS": "1"},
    EVERYSEC: {"REDIS_WAIT_FSYNC": "1"},
    ALWAYS: {"REDIS_WAIT_FSYNC": "1", "APPENDFSYNC": "always"},
}
WRITES = 20


def confirmation(effort: Effort) -> Iterator[Sample]:
    """Submissions while no worker takes a job, and single jobs. Redis has a replica, whatever is waited for."""
    for name, settings in WAITED_FOR.items():
        with running.ours_with_replica(busy=True, **settings) as system:
            if name == EVERYSEC and not _waits_for_the_disk(system.store):
                print(f"Left out: {EVERYSEC}. This Redis answers WAITAOF before that.", file=sys.stderr)
                continue
            result = load.for_seconds(effort.load_s, system.port, [SUBMISSION], MANY)
            if result.refused:
                raise RuntimeError(f"{name}: {result.refused} submissions were refused")
            submit = SUBMIT.format(MANY)
            yield Sample(submit, name, result.rate, "requests/s", CONFIRMATION)
            yield Sample(f"{submit}, p50", name, result.percentile(50) * 1e3, "ms", CONFIRMATION)
        with running.ours_with_replica(busy=False, **settings) as system:
            seconds = [single.seconds for single in measures.single_jobs(system, effort)]
            yield Sample(ONE_JOB, name, median(seconds) * 1e3, "ms", CONFIRMATION)


def _waits_for_the_disk(store: Any) -> bool:
    """Tell whether WAITAOF is right, with a disk that is written once a second: https://github.com/redis/redis/pull/13793."""
    began_at = time.monotonic()
    for number in range(WRITES):
        store.set("written", number)
        store.execute_command("WAITAOF", 1, 0, 2000)
        if time.monotonic() - began_at > 1:
            return True
    return False
