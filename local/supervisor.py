"""The supervisor: starts the parts in order, keeps them up, and stops them in order."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import aiohttp

from knative_jobs.events.emit import ENDED, SUBMITTED
from knative_jobs.runtime.job_kind import BULK
from knative_jobs.runtime.job_status import ENDINGS
from knative_jobs.runtime.settings import settings
from local import FUNCTIONS, ROOT, instance, loopback, manifests, ports, redis_server, redis_users
from local.daemon import Daemon, StartError
from local.knative import MARGIN_SECONDS, PASSWORDS
from local.log import say
from local.manifests import JOBSINK_HOST
from local.processes import Processes
from local.redis_users import API, OPENER

HOST = "127.0.0.1"
REDIS_PORT = 6379
ADMINISTRATOR = "REDIS_ADMIN_PASSWORD"
"""The variable with the password of a Redis user who may do everything, for those who measure. Unset: there is none."""


class Options(NamedTuple):
    """What to run."""

    port: int
    """Where the public functions answer."""
    data: Path
    """The folder that Redis keeps its data in."""
    max_workers: int
    """The greatest number of worker processes of each kind of job."""
    kinds: Sequence[Path]
    """The folders of the kinds."""
    components: Sequence[Path]
    """Folders of manifests besides `knative/base` and the kinds."""
    reload: bool
    """Whether the workers are restarted when files of their work change."""


async def supervise(options: Options, lock: IO[str]) -> None:
    """Run everything until SIGINT or SIGTERM.

    Args:
        options: what to run.
        lock: the locked file that keeps other supervisors from the data folder.

    Raises:
        ExceptionGroup: of StartErrors, when a part could not start.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    running = asyncio.create_task(_run(options, lock))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        say("local", "stopping")
    stopping.cancel()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def _run(options: Options, lock: IO[str]) -> None:
    folders = [manifests.BASE, *options.kinds, *options.components]
    async with AsyncExitStack() as stack:  # what is entered last is stopped first
        processes = Processes(lock)
        stack.push_async_callback(processes.close)
        client = await stack.enter_async_context(aiohttp.ClientSession())
        broker_socket = socket.create_server((HOST, 0))
        redis_port = stack.enter_context(ports.reserved(HOST, REDIS_PORT))
        try:
            env, internal = _environment(redis_port, broker_socket, folders), _internal_users(folders)
        except manifests.ManifestError as error:  # a SystemExit would leave a traceback, of the task that it came from
            raise StartError(str(error)) from None
        say("redis", f"listens on {redis_port}, keeps its data and its log in {options.data}")
        say("broker", f"takes events on {env['K_SINK']}")
        passwords = redis_users.write(options.data, os.environ.get(ADMINISTRATOR, ""))

        redis = _redis(processes, env, redis_port, options.data, passwords)
        stack.push_async_callback(redis.stop, MARGIN_SECONDS)
        try:
            await redis.start()
        except StartError:
            raise StartError(redis_server.why_not(options.data)) from None

        fds = [broker_socket.fileno(), lock.fileno()]
        of_internal = {user: passwords[user] for user in internal & passwords.keys()}
        knative = _knative(processes, env | {PASSWORDS: json.dumps(of_internal)}, client, fds, options, folders)
        of_api = {"REDIS_USERNAME": API, "REDIS_PASSWORD": passwords[API]}
        endpoints = _endpoints(processes, env | of_api, client, options.port)
        grace_s = settings().worker_grace_seconds + MARGIN_SECONDS
        stack.push_async_callback(knative.stop, grace_s + MARGIN_SECONDS)
        stack.push_async_callback(endpoints.stop, grace_s)
        async with asyncio.TaskGroup() as starting:
            starting.create_task(knative.start())
            starting.create_task(endpoints.start())

        if also := await loopback.listen(options.port, HOST):
            stack.callback(also.close)
        _greet(options.port, redis_port)
        async with asyncio.TaskGroup() as running:
            for kept in (redis, knative, endpoints):
                running.create_task(kept.keep())


def _redis(processes: Processes, env: Mapping[str, str], port: int, data: Path, passwords: Mapping[str, str]) -> Daemon:
    """Return the Redis server, for the users of the file in its data folder."""
    command = redis_server.command(port, data, env, data / redis_users.FILE)
    return Daemon(processes, env, "redis", command, partial(redis_server.opened, port, passwords[OPENER]))


def _knative(
    processes: Processes,
    env: Mapping[str, str],
    client: aiohttp.ClientSession,
    fds: Sequence[int],
    options: Options,
    folders: Sequence[Path],
) -> Daemon:
    """Return the process that has the Broker and starts workers. It gets the Broker's socket and the lock: `fds`."""
    arguments = [*fds, options.max_workers, int(options.reload), *folders]
    command = [sys.executable, "-P", "-m", "local.knative", *map(str, arguments)]
    return Daemon(processes, env, "knative", command, partial(_answers, client, env["K_SINK"]), fds, prints=True)


def _endpoints(processes: Processes, env: Mapping[str, str], client: aiohttp.ClientSession, port: int) -> Daemon:
    """Return the server of the public functions."""
    answers = partial(_answers, client, f"http://{HOST}:{port}/")
    command = instance.command(ROOT / "local" / "endpoints.py", HOST, port)
    return Daemon(processes, env, "endpoints", command, answers)


def _internal_users(folders: Sequence[Path]) -> set[str]:
    """Return the Redis users of the functions that only the Broker calls."""
    services = {service.redis_user for service in manifests.services(*folders) if not service.public}
    return services | {job_sink.redis_user for job_sink in manifests.job_sinks(*folders)}


def _environment(redis_port: int, broker_socket: socket.socket, folders: Sequence[Path]) -> dict[str, str]:
    """Return what every part gets: the user's own settings, and where the others are."""
    search = [str(FUNCTIONS), os.environ.get("PYTHONPATH"), str(ROOT)]
    triggers = manifests.triggers(*folders)
    of_jobs = [t for t in triggers if t.attributes.get("type") == SUBMITTED and t.attributes["jobkind"] != BULK]
    own = {name: value for name, value in os.environ.items() if name != ADMINISTRATOR}
    return own | {
        # A proxy may stand before Redis. Not REDIS_URL itself: somebody may have that set for something else.
        "REDIS_URL": os.environ.get("REDIS_PROXY_URL", f"redis://{HOST}:{redis_port}/0"),
        "REDIS_USERNAME": "",
        "REDIS_PASSWORD": "",
        "K_SINK": f"http://{HOST}:{broker_socket.getsockname()[1]}/",
        "JOB_KINDS": " ".join(trigger.attributes["jobkind"] for trigger in of_jobs),
        "JOBSINK_KINDS": " ".join(t.attributes["jobkind"] for t in of_jobs if JOBSINK_HOST in t.subscriber),
        "JOB_EVENTS": os.environ.get("JOB_EVENTS") or _job_events(triggers),
        "PYTHONPATH": os.pathsep.join(filter(None, search)),
        "PYTHONUNBUFFERED": "1",
    }


def _job_events(triggers: Iterable[manifests.Trigger]) -> str:
    """Return which ends of a job some Trigger asks for: an event that none wants need not be made."""
    wanted = {trigger.attributes.get("type", "") for trigger in triggers}
    return " ".join(word for word, status in ENDINGS.items() if wanted & {"", ENDED[status]}) or "none"


async def _answers(client: aiohttp.ClientSession, url: str) -> bool:
    with suppress(aiohttp.ClientError, TimeoutError):
        async with client.get(url, timeout=aiohttp.ClientTimeout(total=1)):
            return True
    return False


def _greet(port: int, redis_port: int) -> None:
    at = f"localhost:{port}"
    lines = (
        f"Ready on http://{at}; open it in a browser, or:",
        "",
        f'  curl -X POST {at}/jobs -d \'{{"start": "1", "end": "2"}}\'',
        f"  curl '{at}/jobs_status?job_id=ID'",
        f"  curl {at}/completed_jobs",
        f"  redis-cli -p {redis_port} hgetall job.ID",
        "",
        "Ctrl-C stops it.",
    )
    print("", *lines, "", sep="\n", flush=True)
