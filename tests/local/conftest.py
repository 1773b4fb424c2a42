"""Real parts of the platform for its tests: HTTP servers on loopback, and the supervisor as a process."""

import asyncio
import inspect
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web

from harness.local_mode import LocalMode
from knative_jobs.events import http_client
from local import ports
from tests.conftest import PATIENCE_S, eventually, http


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(autouse=True)
def patient_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process may not run for a while where the machine is busy; a server is not away for that."""
    monkeypatch.setattr(http_client, "TAKE_SECONDS", PATIENCE_S)


async def until(check: Callable[[], object], within_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(within_s):
        while not check():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def listening(handler: Callable[[web.BaseRequest], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """An HTTP server on a free port."""
    runner = web.ServerRunner(web.Server(handler, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    port = ports.free()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        await runner.cleanup()


@dataclass
class Sink:
    """Takes events; answers what the test put into `answers`, then 204."""

    answers: list[web.Response] = field(default_factory=list)
    takes_s: dict[str, float] = field(default_factory=dict)
    received: list[tuple[float, dict[str, str], bytes]] = field(default_factory=list)

    async def handle(self, request: web.BaseRequest) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append((asyncio.get_running_loop().time(), headers, await request.read()))
        await asyncio.sleep(self.takes_s.get(headers["ce-id"], 0))
        return self.answers.pop(0) if self.answers else web.Response(status=204)

    @property
    def ids(self) -> list[str]:
        return [headers["ce-id"] for _, headers, _ in self.received]

    @property
    def waits(self) -> list[float]:
        times = [time for time, _, _ in self.received]
        return [after - before for before, after in itertools.pairwise(times)]


class Platform(LocalMode):
    """Local mode in a folder, which its data are in, with what tests ask of it."""

    def __init__(self, folder: Path, *options: str, **settings: str) -> None:
        super().__init__(folder / "data", *options, **settings)

    def refused(self) -> str:
        """What it says when it does not start."""
        self.begin()
        assert self.process.wait(PATIENCE_S) == 1
        return self.said()

    def child(self, part: str) -> int | None:
        """The id of the supervisor's own child whose command has this part."""
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):
                if part in " ".join(child.cmdline()):
                    return child.pid
        return None

    def get(self, path: str) -> Any:
        return http.request("GET", self.url + path)

    def submit(self, **job: object) -> str:
        answer = http.request("POST", self.url + "/jobs", json=job or {"start": "1", "end": "2"})
        assert answer.status == 202, answer.data
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(self.get(f"/jobs_status?job_id={job_id}").json())

    def status(self, job_id: str) -> str:
        return str(self.job(job_id)["status"])

    def done(self, job_id: str) -> dict[str, Any]:
        """The record of the job, once it is complete."""
        eventually(lambda: self.status(job_id) in ("complete", "failed"))
        record = self.job(job_id)
        assert record["status"] == "complete", record
        return record


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with Platform(tmp_path, JOB_SECONDS="0") as platform:
        yield platform
