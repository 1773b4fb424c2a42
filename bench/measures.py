"""What is measured. Each function starts what it needs afresh, and yields the Samples of one round."""

import json
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil

from bench import ENVIRONMENTS, HOST, LIMITS, load, running
from bench.fill import copy
from bench.report import FUNCTIONS as EACH_FUNCTION
from bench.report import Sample
from bench.running import EMPTY, SUBMISSION, System
from local import FUNCTIONS, manifests, ports

CONNECTIONS = (1, 16, 64)
MANY = 16
"""The connections of every measure that names no number."""
BATCH = 1000
IN_FLIGHT = 100
"""More jobs than any system has begun at one moment: when the last so many are done, all are."""
LEAST_DRAIN = 100
DRAIN_TIMEOUT_SECONDS = 60
PAUSE_SECONDS = 0.02
"""Before each single job or request, so that it finds the system idle."""
LENGTHS = (1_000, 10_000, 100_000, 1_000_000)
LONGEST_WHOLE = 100_000
PAGES = 300
STARTS = 5
CLIENTS = 1000
"""That wait at once."""


class Effort(NamedTuple):
    """How long everything takes."""

    rounds: int
    load_s: float
    """Each load that is bound by time."""
    drain_s: float
    """About how long the jobs of a drain take."""
    singles: int
    """How many single jobs..."""
    singles_s: float
    """... as long as they take no longer than this."""
    list_rounds: int
    """In how many of the rounds the lists are measured too."""
    growth_rounds: int
    """The same of how cost grows, `growth`, and of `confirmation`."""


QUICK = Effort(rounds=3, load_s=0.8, drain_s=1.5, singles=20, singles_s=3, list_rounds=1, growth_rounds=1)
FULL = Effort(rounds=5, load_s=2.5, drain_s=3, singles=100, singles_s=10, list_rounds=3, growth_rounds=2)


def submission(effort: Effort) -> Iterator[Sample]:
    """Submissions while no worker takes a job, and the empty function, which is the limit for them."""
    for name in ("ours", *LIMITS, *running.peers()):
        with running.system(name, busy=True) as system:
            refused = 0
            for connections in CONNECTIONS:
                result = load.for_seconds(effort.load_s, system.port, [SUBMISSION], connections)
                measure = f"submit, {connections} connections"
                yield Sample(measure, name, result.rate, "requests/s")
                yield Sample(f"{measure}, p50", name, result.percentile(50) * 1e3, "ms")
                yield Sample(f"{measure}, p99", name, result.percentile(99) * 1e3, "ms")
                refused += result.refused
            if name == "ours":
                batch = load.post("/jobs", BATCH * [{"start": "1", "end": "2"}])
                result = load.for_seconds(effort.load_s, system.port, [batch], 4)
                yield Sample(f"submit, batches of {BATCH}", name, BATCH * result.rate, "jobs/s")
                refused += result.refused
            yield Sample("submit, requests refused", name, refused, "requests")
            if name in LIMITS:
                yield _status(name, system, ["none"], effort)
                # What each HTTP request on the way of a single job takes at least.
                seconds = [_single_request(system).seconds for _ in range(effort.singles)]
                yield Sample("one request, p50", name, median(seconds) * 1e3, "ms")


def drain(effort: Effort) -> Iterator[Sample]:
    """From submission to complete; then, of the same system, status queries, single jobs and memory."""
    for name in ("ours", *running.peers()):
        with running.system(name) as system:
            before = _memory_of_keys(system)
            rate, ids, undone = drain_of_some_seconds(system, effort)
            yield Sample("drain", name, rate, "jobs/s")
            yield Sample("drain, jobs not done", name, undone, "jobs")
            yield Sample("keys of a finished job", name, (_memory_of_keys(system) - before) / len(ids), "bytes")
            yield _status(name, system, ids[:1000], effort)
            singles = single_jobs(system, effort)
            seconds = sorted(single.seconds for single in singles)
            yield Sample("one job, p50", name, median(seconds) * 1e3, "ms")
            yield Sample("one job, p99", name, seconds[int(0.99 * (len(seconds) - 1))] * 1e3, "ms")
            if name == "ours":
                yield from _steps(system, singles)
            yield Sample("memory of all processes", name, sum(map(running.resident, system.processes())), "MB")


def slow_drain(effort: Effort) -> Iterator[Sample]:
    """From submission to complete with a Redis that is 1 ms away."""
    for name in ("ours", *running.peers()):
        with running.system(name, slow_redis=True) as system:
            rate, _, undone = drain_of_some_seconds(system, effort)
            yield Sample("drain, Redis 1 ms away", name, rate, "jobs/s")
            yield Sample("drain, Redis 1 ms away, jobs not done", name, undone, "jobs")


def lists(_: Effort) -> Iterator[Sample]:
    """The list of completed jobs, whole and by page. The fronts of the task queues have none, the original no pages."""
    for name in ("ours", "original"):
        with running.system(name) as system:
            done = json.loads(load.download(system.port, "/completed_jobs")[1])
            filled = len(done)
            for length in LENGTHS:
                if length <= LONGEST_WHOLE or name == "ours":
                    before = system.store.info("memory")["used_memory"]
                    copy(system.store, done[-1]["id"], filled, length - 1)
                    grown = system.store.info("memory")["used_memory"] - before
                    if length == LONGEST_WHOLE:
                        yield Sample(f"Redis, a finished job of {length}", name, grown / (length - filled), "bytes")
                    filled = length
                if length <= LONGEST_WHOLE:
                    yield from _whole_list(name, system, length)
                if name == "ours":
                    yield _page(name, system, length)


def cold_start(_: Effort) -> Iterator[Sample]:
    """From the start of a function's process to its first answer, and the memory that it has then."""
    served: dict[str, tuple[Path, dict[str, str]]] = dict.fromkeys(LIMITS, (EMPTY, {}))
    served |= {service.target: (service.source, service.server) for service in manifests.services()}
    seconds: dict[str, list[float]] = {target: [] for target in served}
    memory = {}
    redis_port = ports.free(HOST)
    with tempfile.TemporaryDirectory(dir=ENVIRONMENTS) as folder, running.redis_alone(redis_port, Path(folder)):
        for _start in range(STARTS):
            for target, (source, server) in served.items():
                port = ports.free(HOST)
                request = port, *_first_request(target)
                began_at = time.monotonic()
                name = "empty" if target in LIMITS else target
                with running.function(name, source, port, redis_port, target == "empty", **server) as process:
                    running.until(lambda request=request: running.answers(*request) in (200, 202), pause_s=0.002)  # type: ignore[misc]
                    seconds[target].append(time.monotonic() - began_at)
                    memory[target] = sum(map(running.resident, running.family(process)))
    starts = {target: median(found) for target, found in seconds.items()}
    for target in served:
        yield Sample("cold start", target, starts[target] * 1e3, "ms", EACH_FUNCTION)
        yield Sample("memory of a function", target, memory[target], "MB", EACH_FUNCTION)
    yield Sample("cold start", "the slowest", max(starts.values()) * 1e3, "ms", EACH_FUNCTION)


def waiting(_: Effort) -> Iterator[Sample]:
    """What a client costs that waits for the end of a job: memory of the function, and threads."""
    port, jobs_port, redis_port = (ports.free(HOST) for _ in range(3))
    with (
        tempfile.TemporaryDirectory(dir=ENVIRONMENTS) as folder,
        running.redis_alone(redis_port, Path(folder)),
        running.function("jobs", FUNCTIONS / "jobs.py", jobs_port, redis_port),
        running.function("jobs_status", FUNCTIONS / "jobs_status.py", port, redis_port) as process,
        ExitStack() as clients,
    ):
        running.until(lambda: running.answers(jobs_port) and running.answers(port))
        (job_id,) = load.so_many(1, jobs_port, [SUBMISSION], 1).ids()
        asking = load.get(f"/jobs_status?job_id={job_id}&wait={{}}")
        load.so_many(1, port, [asking.replace(b"{}", b"0.1")], 1)  # connects to Redis
        family = running.family(process)
        before, threads = sum(map(running.resident, family)), sum(member.num_threads() for member in family)
        for _client in range(CLIENTS):
            clients.enter_context(socket.create_connection((HOST, port))).sendall(asking.replace(b"{}", b"60"))
        running.until(lambda: _is_idle(family))
        grown = sum(map(running.resident, family)) - before
        yield Sample("a client that waits", "ours", grown / CLIENTS * 1e3, "kB")
        more = sum(member.num_threads() for member in family) - threads
        yield Sample(f"threads for {CLIENTS} clients that wait", "ours", more, "threads")


def _status(name: str, system: System, ids: Sequence[str], effort: Effort) -> Sample:
    queries = [load.get(f"/jobs_status?job_id={job_id}") for job_id in ids]
    return Sample("status", name, load.for_seconds(effort.load_s, system.port, queries, MANY).rate, "requests/s")


def drain_of_some_seconds(
    system: System, effort: Effort, submission: bytes = SUBMISSION
) -> tuple[float, list[str], int]:
    """Submit jobs and wait until all are done.

    Return jobs per second, the ids of all jobs, and how many are not done or cannot be queried.

    Each drain is of as many jobs as the one before promises for `drain_s`; the first that takes most of it counts.
    """
    count, all_ids = LEAST_DRAIN, []
    while True:
        seconds, ids, undone = _drain_of(system, count, submission)
        all_ids += ids
        rate = (count - undone) / seconds
        if seconds > effort.drain_s / 2 or undone:
            return rate, all_ids, undone
        count = int(rate * effort.drain_s)


def _drain_of(system: System, count: int, submission: bytes) -> tuple[float, list[str], int]:
    """Return the seconds from the first submission until all are complete, the ids, and how many are not."""
    submitted = load.so_many(count, system.port, [submission], MANY)
    done_at = _wait(system, [json.loads(body)["id"] for body in submitted.bodies[-IN_FLIGHT:]])
    ids = submitted.ids()
    if set(system.statuses(ids)) != {"complete"}:
        done_at = _wait(system, ids)
    undone = count - system.statuses(list(set(ids))).count("complete")
    return done_at - submitted.began_at, ids, min(count, undone + _unanswered(system, ids[::50]))


def _wait(system: System, ids: list[str]) -> float:
    """Return when all were complete, or when there was no more hope."""
    ends_at = time.monotonic() + DRAIN_TIMEOUT_SECONDS
    while (now := time.monotonic()) < ends_at and set(system.statuses(ids)) != {"complete"}:
        time.sleep(0.005)
    return now


def _unanswered(system: System, ids: list[str]) -> int:
    """Return for how many of the jobs the API itself does not say that they are complete."""
    queries = [load.get(f"/jobs_status?job_id={job_id}") for job_id in ids]
    bodies = load.so_many(len(queries), system.port, queries, 1).bodies
    return sum(json.loads(body).get("status") != "complete" for body in bodies)


class Single(NamedTuple):
    """A job that was submitted to an idle system."""

    id: str
    began_at: float
    """When its submission was sent, in seconds since the epoch."""
    seconds: float
    """From then until its record said that it is complete."""


def single_jobs(system: System, effort: Effort) -> list[Single]:
    ends_at = time.monotonic() + effort.singles_s
    singles: list[Single] = []
    while len(singles) < effort.singles and time.monotonic() < ends_at:
        singles.append(_single_job(system))
    return singles


def _single_request(system: System) -> load.Result:
    time.sleep(PAUSE_SECONDS)
    return load.so_many(1, system.port, [SUBMISSION], 1)


def _single_job(system: System) -> Single:
    submitted = _single_request(system)
    (job_id,) = submitted.ids()
    while system.store.hget(f"job.{job_id}", "status") != "complete":
        time.sleep(0.0002)
    seconds = time.monotonic() - submitted.began_at
    return Single(job_id, time.time() - seconds, seconds)


def _steps(system: System, singles: Sequence[Single]) -> Iterator[Sample]:
    """Where the time of a job goes, by the times in its record."""
    steps = ("until it is saved", "saved to claimed", "claimed to finished")
    fields = ("submitted-at", "started-at", "finished-at")
    times = [(job.began_at, *map(float, system.store.hmget(f"job.{job.id}", fields))) for job in singles]
    for i, step in enumerate(steps):
        yield Sample(f"one job, {step}, p50", "ours", median(at[i + 1] - at[i] for at in times) * 1e3, "ms")


def _memory_of_keys(system: System) -> int:
    """Return the bytes that Redis says its keys use. What they are allocated is up to a tenth more."""
    with system.store.pipeline(transaction=False) as pipeline:
        for key in system.store.scan_iter(count=1000):
            pipeline.memory_usage(key, samples=0)
        return sum(size or 0 for size in pipeline.execute())


def _whole_list(name: str, system: System, length: int) -> Iterator[Sample]:
    with _growth_of_memory(system) as growth:
        seconds, body, _ = load.download(system.port, "/completed_jobs")
    if len({job["id"] for job in json.loads(body)}) != length:
        raise RuntimeError(f"the list of {name} has other jobs than it should have")
    yield Sample(f"list of {length}, whole", name, seconds * 1e3, "ms")
    yield Sample(f"list of {length}, growth of memory", name, growth[0], "MB")


def _page(name: str, system: System, length: int) -> Sample:
    """Get the first and the second page of 100 in turn, on one connection."""
    _, _, link = load.download(system.port, "/completed_jobs?limit=100")
    following = urlsplit(re.findall("<(.*)>", link)[0])
    paths = ["/completed_jobs?limit=100", f"{following.path}?{following.query}"]
    result = load.so_many(PAGES, system.port, [load.get(path) for path in paths], 1)
    return Sample(f"list of {length}, page of 100, p50", name, result.percentile(50) * 1e3, "ms")


def _is_idle(family: Sequence[psutil.Process]) -> bool:
    """Return whether the processes use no time of the processor for a while."""
    before = [member.cpu_times() for member in family]
    time.sleep(0.5)
    return before == [member.cpu_times() for member in family]


def _first_request(target: str) -> tuple[str, str, str | None]:
    """Return one that uses Redis where that works in an empty store; otherwise what says that the function is ready."""
    if target == "jobs":
        return "POST", "/", '{"start": "1", "end": "2"}'
    return "GET", "/" if target.endswith("_jobs") or target in LIMITS else "/health/readiness", None


@contextmanager
def _growth_of_memory(system: System) -> Iterator[list[float]]:
    """Yield a list that holds, in the end, by how many MB the resident memory of the system has grown at most."""
    processes, over, growth = system.processes(), threading.Event(), [0.0]
    before = sum(map(running.resident, processes))

    def watch() -> None:
        while not over.wait(0.01):
            growth[0] = max(growth[0], sum(map(running.resident, processes)) - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield growth
    over.set()
    watcher.join()
