"""How cost grows: with the number of workers and of waiting jobs, and until Redis is full. Of `ours` alone."""

import http.client
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import redis

from bench import ENVIRONMENTS, HOST, load, measures, running
from bench.fill import copy
from bench.measures import MANY, Effort
from bench.report import (
    BACKLOG,
    CONCURRENCY,
    REDIS,
    REDIS_COMMANDS,
    REDIS_COMMANDS_PER_SECOND,
    REDIS_JOBS,
    REDIS_MICROS,
    REDIS_SCRIPTS,
    Sample,
)
from bench.running import SUBMISSION, System
from local import FUNCTIONS, ports

WORKERS = (1, 2, 4, 8)
WORK_MILLISECONDS = (1, 10)
LONG_MILLISECONDS = 3_600_000
"""Of a job that is to run until it is cancelled."""
LENGTHS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
LEAST_MEASURED = 10_000
"""With fewer jobs, what one of them adds to the memory of Redis is lost in the rest."""
SWEEPS, SWEEPS_OF_ENDED = 5, 3
OVERDUE = 10
"""As many as one pass announces again."""
ENDED = 1000
"""As many as one pass of the sweep removes."""
RETENTION_SECONDS = 0.2
SOON_REMOVED: Any = {"JOB_RETENTION_SECONDS": str(RETENTION_SECONDS)}


def concurrency(effort: Effort) -> Iterator[Sample]:
    """For each number of workers, Redis here and 1 ms away: the time until all are busy, and drains of longer jobs."""
    for workers in WORKERS:
        for away, slow_redis in (("", False), (", Redis 1 ms away", True)):
            with running.ours_with_work(workers, slow_redis) as system:
                name = f"{workers} workers" if workers > 1 else "1 worker"
                seconds = _all_busy(system, workers)
                yield Sample(f"from no worker to all busy{away}", name, seconds, "s", CONCURRENCY)
                for milliseconds in WORK_MILLISECONDS:
                    submission = load.post("/jobs", {"start": milliseconds, "end": ""})
                    rate, _, undone = measures.drain_of_some_seconds(system, effort, submission)
                    what = f"drain, {milliseconds} ms of work{away}"
                    yield Sample(what, name, rate, "jobs/s", CONCURRENCY)
                    if undone:
                        raise RuntimeError(f"{what}, {name}: {undone} jobs are not done")


def backlog(effort: Effort) -> Iterator[Sample]:
    """For each number of waiting jobs: submissions, the sweep, and memory. No worker and no Broker is there."""
    redis_port, jobs_port, cancel_port, sweeper_port = (ports.free(HOST) for _ in range(4))
    with (
        tempfile.TemporaryDirectory(dir=ENVIRONMENTS) as folder,
        running.redis_alone(redis_port, Path(folder)) as store,
        running.function("jobs", FUNCTIONS / "jobs.py", jobs_port, redis_port, MAX_QUEUED_JOBS="10000000"),
        running.function("cancel_job", FUNCTIONS / "cancel_job.py", cancel_port, redis_port, **SOON_REMOVED),
        running.function("sweeper", FUNCTIONS / "sweeper.py", sweeper_port, redis_port, SWEEP_SECONDS="0"),
    ):
        for port in (jobs_port, cancel_port, sweeper_port):
            running.until(lambda port=port: running.answers(port))  # type: ignore[misc]
        for length in LENGTHS:
            waiting = f"{length:,}"
            bytes_of_job = _fill(store, jobs_port, length)
            if length >= LEAST_MEASURED:
                yield Sample("Redis, a waiting job", waiting, bytes_of_job, "bytes", BACKLOG)
            rate = _submissions(store, jobs_port, length, effort)
            yield Sample(f"submit, {MANY} connections", waiting, rate, "requests/s", BACKLOG)
            yield from _sweeps(store, sweeper_port, waiting)
            times = [_sweep_of_ended(store, jobs_port, cancel_port, sweeper_port) for _ in range(SWEEPS_OF_ENDED)]
            yield Sample(f"a pass of the sweep that removes {ENDED:,}", waiting, median(times) * 1e3, "ms", BACKLOG)


def redis_use(effort: Effort) -> Iterator[Sample]:
    """What a job costs Redis: commands, and time of its main thread, in a drain that is not watched meanwhile."""
    with running.system("ours") as system:
        rate, _, _ = measures.drain_of_some_seconds(system, effort)
        count = int(rate * effort.drain_s)
        before, began_at = _use(system.store), time.monotonic()
        result = load.so_many(count, system.port, [SUBMISSION], MANY)
        looks = 1
        while system.store.zcard("jobs.incomplete"):
            time.sleep(0.1)
            looks += 1
        seconds = time.monotonic() - began_at
        use = {name: value - before.get(name, 0) for name, value in _use(system.store).items()}
        if result.refused:
            raise RuntimeError(f"{result.refused} submissions were refused")
    use["zcard"] -= looks
    micros = use.pop("micros")
    commands = sum(use.values())
    for what, value, unit in (
        (REDIS_SCRIPTS, use["evalsha"] / count, "calls"),
        (REDIS_COMMANDS, commands / count, "commands"),
        (REDIS_MICROS, micros / count, "microseconds"),
        (REDIS_JOBS, count / seconds, "jobs/s"),
        (REDIS_COMMANDS_PER_SECOND, commands / seconds, "commands/s"),
    ):
        yield Sample(what, "ours", value, unit, REDIS)


def _all_busy(system: System, workers: int) -> float:
    """Return the seconds from a submission of as many jobs as there may be workers, none of them up, until all run.

    Then the workers are there, and idle.
    """
    batch = load.post("/jobs", workers * [{"start": LONG_MILLISECONDS, "end": ""}])
    submitted = load.so_many(1, system.port, [batch], 1)
    ids = submitted.ids()
    running.until(lambda: set(system.statuses(ids)) == {"in progress"})
    seconds = time.monotonic() - submitted.began_at
    load.so_many(workers, system.port, [load.post(f"/cancel_job?job_id={job_id}", {}) for job_id in ids], 1)
    running.until(lambda: set(system.statuses(ids)) == {"cancelled"})
    return seconds


def _fill(store: redis.Redis, jobs_port: int, length: int) -> float:
    """Let so many jobs wait that are copies of one, and nothing else be in the store. Return the bytes of one."""
    store.flushall()
    (job_id,) = load.so_many(1, jobs_port, [SUBMISSION], 1).ids()
    before = _memory(store)
    copy(store, job_id, 1, length - 1)
    return (_memory(store) - before) / (length - 1)


def _submissions(store: redis.Redis, jobs_port: int, length: int, effort: Effort) -> float:
    """Return submissions a second while about so many jobs wait: where they would soon be many more, it starts anew."""
    sent, seconds = 0, 0.0
    while seconds < effort.load_s:
        if _waiting(store) > 2 * length:
            _fill(store, jobs_port, length)
        result = load.so_many(min(max(length, 100), 10_000), jobs_port, [SUBMISSION], MANY)
        if result.refused:
            raise RuntimeError(f"{result.refused} submissions were refused")
        sent += len(result.bodies)
        seconds += result.seconds
    return sent / seconds


def _sweeps(store: Any, sweeper_port: int, waiting: str) -> Iterator[Sample]:
    """Passes of the sweep that find jobs to announce again, and none to remove: time, and bytes from and to Redis."""
    store.zadd("jobs.due", dict.fromkeys(store.zrange("jobs.due", 0, OVERDUE - 1), 0))
    _sweep(sweeper_port)  # connects to Redis, and loads the scripts
    own = _traffic(store, lambda: None)
    seconds: list[float] = []
    used = _traffic(store, lambda: seconds.extend(_sweep(sweeper_port) for _ in range(SWEEPS)))
    yield Sample("a pass of the sweep", waiting, median(seconds) * 1e3, "ms", BACKLOG)
    yield Sample("a pass of the sweep, to and from Redis", waiting, (used - own) / SWEEPS, "bytes", BACKLOG)


def _sweep_of_ended(store: redis.Redis, jobs_port: int, cancel_port: int, sweeper_port: int) -> float:
    """Return the seconds of a pass that removes jobs whose retention is over."""
    (job_id,) = load.so_many(1, jobs_port, [SUBMISSION], 1).ids()
    load.so_many(1, cancel_port, [load.post(f"/cancel_job?job_id={job_id}", {})], 1)
    copy(store, job_id, 1, ENDED - 1, apart=LENGTHS[-1])
    time.sleep(RETENTION_SECONDS)
    if store.zcard("jobs.retention") != ENDED:
        raise RuntimeError("there are not as many ended jobs as there should be")
    seconds = _sweep(sweeper_port)
    if store.zcard("jobs.retention"):
        raise RuntimeError("the sweep has left ended jobs")
    return seconds


def _sweep(port: int) -> float:
    """Return the seconds that a pass takes."""
    connection = http.client.HTTPConnection(HOST, port, timeout=load.ANSWER_SECONDS)
    connection.connect()
    began_at = time.monotonic()
    connection.request("POST", "/")
    status = connection.getresponse().status
    seconds = time.monotonic() - began_at
    connection.close()
    if status != 204:
        raise RuntimeError(f"the sweeper answered {status}")
    return seconds


def _waiting(store: Any) -> int:
    return int(store.zcard("jobs.submitted"))


def _memory(store: Any) -> int:
    return int(store.info("memory")["used_memory"])


def _traffic(store: Any, action: Any) -> int:
    """Return how many bytes Redis received and sent meanwhile, this very question included."""
    before = store.info("stats")
    action()
    after = store.info("stats")
    return sum(int(after[name] - before[name]) for name in ("total_net_input_bytes", "total_net_output_bytes"))


def _use(store: Any) -> dict[str, float]:
    """Return how often Redis has run each command, by name, and the `micros` that its main thread has worked.

    A command inside a script counts too, and so does the call of the script. The benchmark's own questions do not.
    """
    calls = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in store.info("commandstats").items()}
    calls.pop("info", None)
    cpu = store.info("cpu")
    seconds = float(cpu["used_cpu_sys_main_thread"]) + float(cpu["used_cpu_user_main_thread"])
    return calls | {"micros": seconds * 1e6}
