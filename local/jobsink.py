"""A JobSink: starts a process for each event, where Knative makes a Kubernetes Job of it.

https://knative.dev/docs/eventing/sinks/job-sink/ and https://github.com/knative/eventing/tree/main/cmd/jobsink
"""

import asyncio
import base64
import json
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

from knative_jobs.events import cloudevent
from knative_jobs.events.cloudevent import Event
from knative_jobs.events.http_client import Answer
from knative_jobs.runtime.errors import InvalidError
from local import manifests
from local.log import say
from local.processes import Processes

BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 10, 360
"""The wait before a process that failed is started again, as Kubernetes does it for the pods of a Job; it doubles."""


class JobSink:
    """The processes of one JobSink, and the events that it remembers.

    As Knative does, it tells events apart by source and id. It remembers one until its process has ended and
    `ttlSecondsAfterFinished` is over; until then the same event starts nothing.
    """

    def __init__(
        self,
        declared: manifests.JobSink,
        most: int,
        processes: Processes,
        env: Mapping[str, str],
        grace_s: float,
        folder: Path,
    ) -> None:
        """Begin with none.

        Args:
            declared: what the manifest says.
            most: the greatest number of processes; further events wait, as pods do that no node has room for.
            processes: starts and stops them.
            env: their environment, but for what is each one's own.
            grace_s: how long one may take to end after SIGTERM, in seconds.
            folder: for the files of the events.
        """
        self._declared = declared
        self._processes = processes
        self._env = env
        self._grace_s = grace_s
        self._folder = folder
        self._addresses: asyncio.Queue[str] = asyncio.Queue()
        for n in range(1, most + 1):
            self._addresses.put_nowait(f"127.0.0.{n}")
        self._kept: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def receive(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Take an event: 202 at once, or 400 for what is none."""
        try:
            event = cloudevent.read(headers, body)
        except InvalidError as error:
            return Answer(400, {}, f"{error}\n".encode())
        key = event.attributes["source"], event.attributes["id"]
        if key not in self._kept:
            self._kept[key] = asyncio.create_task(self._keep(key, event))
        return Answer(202, {}, b"")

    async def close(self) -> None:
        """Stop all processes, and forget all events."""
        tasks = list(self._kept.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, key: tuple[str, str], event: Event) -> None:
        file = self._folder / str(uuid.uuid4())
        file.write_text(_structured(event))
        try:
            if not await self._succeeds(file):
                say(self._declared.name, f"the process for event {event.attributes['id']!r} failed and is given up")
            await asyncio.sleep(self._declared.ttl_s)
        finally:
            file.unlink()
            del self._kept[key]

    async def _succeeds(self, file: Path) -> bool:
        """Run the process for the event in a file, again when it fails. Return whether it has ended well."""
        for failures in range(self._declared.backoff_limit + 1):
            if failures:
                await asyncio.sleep(min(BACKOFF_SECONDS * 2 ** (failures - 1), LONGEST_BACKOFF_SECONDS))
            address = await self._addresses.get()
            try:
                if await self._run(file, address) == 0:
                    return True
            finally:
                self._addresses.put_nowait(address)
        return False

    async def _run(self, file: Path, address: str) -> int:
        command = [sys.executable if word == "python" else word for word in self._declared.command]
        env = {**self._declared.env, **self._env, "WORKER_IP": address}
        process = await self._processes.start(self._declared.name, [*command, file], env)
        try:
            return await self._processes.ended(process)
        except asyncio.CancelledError:
            await self._processes.stop(process, self._grace_s)
            raise


def _structured(event: Event) -> str:
    """Return the event as JSON: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md."""
    attributes = dict(event.attributes)
    if attributes.get("datacontenttype", "application/json") == "application/json":
        return json.dumps(attributes | {"data": json.loads(event.data or b"null")})
    return json.dumps(attributes | {"data_base64": base64.b64encode(event.data).decode()})
