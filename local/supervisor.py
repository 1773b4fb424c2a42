"""The supervisor: starts the parts in order, keeps them up, and stops them in order."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import IO

import aiohttp
from aiohttp import web

from knative_jobs.events import ENDED
from knative_jobs.settings import ENDINGS, settings
from local import FUNCTIONS, ROOT, activator, manifests, pings, ports, redis_server, redis_users
from local.autoscaler import Autoscaler
from local.daemon import Daemon
from local.instance import command
from local.log import say
from local.processes import Processes
from local.redis_users import OPENER

HOST = "127.0.0.1"
REDIS_PORT = 6379
MARGIN_SECONDS = 3
"""How much longer than the running job a function may take to end."""


async def supervise(port: int, data: Path, max_workers: int, components: Sequence[Path], lock: IO[str]) -> None:
    """Run everything until SIGINT or SIGTERM.

    Args:
        port: where the public functions answer.
        data: the folder that Redis keeps its data in.
        max_workers: the greatest number of worker processes.
        components: folders of manifests besides `knative/base`.
        lock: the locked file that keeps other supervisors from the folder.

    Raises:
        ExceptionGroup: of StartErrors, when a part could not start.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    running = asyncio.create_task(_run(port, data, max_workers, components, Processes(lock)))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        say("local", "stopping")
    stopping.cancel()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def _run(port: int, data: Path, max_workers: int, components: Sequence[Path], processes: Processes) -> None:
    async with AsyncExitStack() as stack:  # what is entered last is stopped first
        stack.push_async_callback(processes.close)
        client = await stack.enter_async_context(activator.session())
        broker_socket = socket.create_server((HOST, 0))
        grace_s = settings().worker_grace_seconds + MARGIN_SECONDS
        redis_port = stack.enter_context(ports.reserved(HOST, REDIS_PORT))
        env = _environment(redis_port, broker_socket, components)
        daemon = partial(Daemon, processes, env)
        say("redis", f"listens on {redis_port}, keeps its data and its log in {data}")
        declared = manifests.services(manifests.BASE, *components)
        public = {s.env["REDIS_USERNAME"] for s in declared if s.public and "REDIS_USERNAME" in s.env}
        # Who measures may have to do what no function may.
        passwords = redis_users.write(data, public, env.pop("REDIS_ADMIN_PASSWORD", ""))
        redis_command = redis_server.command(redis_port, data, env, data / redis_users.FILE)
        redis = daemon("redis", redis_command, partial(redis_server.opened, redis_port, passwords[OPENER]))
        stack.push_async_callback(redis.stop, MARGIN_SECONDS)
        await redis.start()

        def as_user(name: str) -> dict[str, str]:
            return env | {"REDIS_USERNAME": name, "REDIS_PASSWORD": passwords.get(name, "")}

        services = {}
        for service in declared:
            if not service.public:
                most = max_workers if service.name == "worker" else 1
                its_env = as_user(service.env.get("REDIS_USERNAME", ""))
                services[service.name] = Autoscaler(service, most, processes, its_env, grace_s)
        activator_url = await _listen(activator.forwarding(services, client), stack)
        broker_fd = broker_socket.fileno()
        broker_command: list[str | Path] = [sys.executable, "-P", "-m", "local.broker"]
        broker_command += [str(broker_fd), activator_url, *components]
        broker = daemon("broker", broker_command, partial(_answers, client, env["K_SINK"]), [broker_fd])
        endpoints_command = command(ROOT / "local" / "endpoints.py", HOST, port)
        endpoints_ready = partial(_answers, client, f"http://{HOST}:{port}/")
        its_env = as_user(redis_users.ENDPOINTS)
        endpoints = Daemon(processes, its_env, "endpoints", endpoints_command, endpoints_ready)
        stack.push_async_callback(broker.stop, MARGIN_SECONDS)
        stack.push_async_callback(_close, services.values())
        stack.push_async_callback(endpoints.stop, grace_s)
        async with asyncio.TaskGroup() as starting:
            starting.create_task(broker.start())
            starting.create_task(endpoints.start())

        _greet(port, redis_port)
        async with asyncio.TaskGroup() as running:
            for kept in (redis, broker, endpoints):
                running.create_task(kept.keep())
            for source in manifests.ping_sources(manifests.BASE, activator_url, *components):
                running.create_task(pings.send(source, client))


def _environment(redis_port: int, broker_socket: socket.socket, components: Sequence[Path]) -> dict[str, str]:
    """Return what every part gets: the user's own settings, and where the others are."""
    search = [str(FUNCTIONS), str(Path.cwd()), os.environ.get("PYTHONPATH"), str(ROOT)]
    return os.environ | {
        # A proxy may stand before Redis. Not REDIS_URL itself: somebody may have that set for something else.
        "REDIS_URL": os.environ.get("REDIS_PROXY_URL", f"redis://{HOST}:{redis_port}/0"),
        "REDIS_USERNAME": "",
        "REDIS_PASSWORD": "",
        "K_SINK": f"http://{HOST}:{broker_socket.getsockname()[1]}/",
        "JOB_EVENTS": os.environ.get("JOB_EVENTS") or _job_events(components),
        "PYTHONPATH": os.pathsep.join(filter(None, search)),
        "PYTHONUNBUFFERED": "1",
    }


def _job_events(components: Sequence[Path]) -> str:
    """Return which ends of a job some Trigger asks for: an event that none wants need not be made."""
    wanted = {trigger.attributes.get("type", "") for trigger in manifests.triggers(manifests.BASE, "", *components)}
    return " ".join(word for word, status in ENDINGS.items() if wanted & {"", ENDED[status]}) or "none"


async def _answers(client: aiohttp.ClientSession, url: str) -> bool:
    with suppress(aiohttp.ClientError, TimeoutError):
        async with client.get(url, timeout=aiohttp.ClientTimeout(total=1)):
            return True
    return False


async def _listen(handler: activator.Handler, stack: AsyncExitStack) -> str:
    """Serve with the handler on a free port, and return the address."""
    runner = web.ServerRunner(web.Server(handler, access_log=None), shutdown_timeout=1)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, HOST, 0).start()
    return f"http://{HOST}:{runner.addresses[0][1]}"


async def _close(services: Iterable[Autoscaler]) -> None:
    await asyncio.gather(*(autoscaler.close() for autoscaler in services))


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
