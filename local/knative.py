"""What Knative itself does, in one process: the Broker, PingSources, JobSinks, the activator and the autoscalers.

`python -m local.knative FD LOCK MAX_WORKERS RELOAD FOLDER ...` serves the listening socket FD, which the supervisor
made, so that the Broker's address outlives this process. LOCK is the open locked file of the data folder. With 1 for
RELOAD the workers are restarted when files of their work change. What there is to run and to call is declared in the
folders.
"""

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import IO

import uvloop
from aiohttp import web

from knative_jobs.runtime.settings import DEFAULT_KIND, settings
from local import activator, manifests, pings, reloading
from local.autoscaler import Autoscaler
from local.broker import Broker
from local.jobsink import JobSink
from local.processes import Processes

PASSWORDS = "REDIS_PASSWORDS"
"""The environment variable with the passwords of the users of Redis, as a JSON object."""
MARGIN_SECONDS = 3
"""How much longer than the running job a function may take to end."""


async def main(listener: socket.socket, lock: IO[str], max_workers: int, reload: bool, folders: Sequence[Path]) -> None:
    """Serve until SIGTERM; then stop the functions first, for they still send events."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    passwords = json.loads(os.environ.pop(PASSWORDS))
    grace_s = settings().worker_grace_seconds + MARGIN_SECONDS
    async with AsyncExitStack() as stack:  # what is entered last is stopped first
        processes = Processes(lock)
        stack.push_async_callback(processes.close)

        def env_of(declared: manifests.Service | manifests.JobSink) -> dict[str, str]:
            user = declared.redis_user
            # What is set for all is for the kind `default`, and for any other where that says nothing itself.
            of_kind = {} if declared.kind.get("JOB_KIND") == DEFAULT_KIND else declared.kind
            return {
                **os.environ,
                **of_kind,
                "WORKER_GRACE_SECONDS": os.environ[
                    "WORKER_GRACE_SECONDS"
                ],  # Ctrl-C waits no longer for one than for all
                "REDIS_USERNAME": user,
                "REDIS_PASSWORD": passwords.get(user, ""),
            }

        services: dict[str, Autoscaler] = {}
        workers: list[tuple[str, Autoscaler]] = []
        for service in manifests.services(*folders):
            if service.public:
                continue
            env = env_of(service)
            if service.kind:
                at_once = int(env.get("WORKER_CONCURRENCY") or service.kind["WORKER_CONCURRENCY"])
                worker = Autoscaler(service._replace(concurrency=at_once), max_workers, processes, env, grace_s)
                workers.append((env.get("JOB_WORK", ""), worker))
                services[service.name] = worker
            else:
                services[service.name] = Autoscaler(service, 1, processes, env, grace_s)
        job_sinks: dict[str, JobSink] = {}
        for declared in manifests.job_sinks(*folders):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="knative-jobs-")))
            job_sink = JobSink(declared, max_workers, processes, env_of(declared), grace_s, folder)
            job_sinks[declared.name] = job_sink
        post = activator.posting(services, job_sinks)
        broker = Broker(post, manifests.triggers(*folders))
        runner = web.ServerRunner(web.Server(broker.receive, access_log=None), shutdown_timeout=1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.SockSite(runner, listener).start()
        sources = manifests.ping_sources(*folders)
        async with asyncio.TaskGroup() as sending:  # one that fails ends all of it, and is seen
            tasks = [
                # A sweep at once, so that nothing waits which a crash left behind.
                sending.create_task(pings.send(source, post, at_once=source.name == "sweeper"))
                for source in sources
            ]
            if reload:
                tasks.append(sending.create_task(reloading.restart(workers)))
            await stop.wait()
            for task in tasks:
                task.cancel()
        closing = [service.close() for service in services.values()] + [sink.close() for sink in job_sinks.values()]
        await asyncio.gather(*closing)


if __name__ == "__main__":
    fd, lock, max_workers, reload, *folders = sys.argv[1:]
    listener = socket.socket(fileno=int(fd))
    uvloop.run(main(listener, os.fdopen(int(lock)), int(max_workers), reload == "1", list(map(Path, folders))))
