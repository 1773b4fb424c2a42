"""Cluster-local functions: none runs without requests, as many as are needed do with them."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from local import ROOT, activator, autoscaler
from local.activator import Post
from local.autoscaler import Autoscaler
from local.manifests import DOMAIN, Service
from local.processes import Processes
from tests.conftest import PATIENCE_S
from tests.local.conftest import Sink, listening, until

FUNCTION = """
import os, signal, time
import functions_framework

@functions_framework.http
def echo(request):
    while "gate" in request.args and not os.path.exists(request.args["gate"]):
        time.sleep(0.02)
    if "die" in request.args:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(10)
    text = f"{os.environ['WORKER_IP']} {request.path} {request.get_data(as_text=True)}"
    return text, {"x-kind": request.headers["x-kind"]}
"""


class Client:
    def __init__(self, post: Post, service: Autoscaler) -> None:
        self.post, self.service = post, service

    async def call(self, query: str = "", name: str = "echo") -> tuple[int, str]:
        """The status, and the address of the instance that answered."""
        answer = await self.post(f"http://{name}.{DOMAIN}/?{query}", {"x-kind": "a"}, b"hello")
        return answer.status, answer.body.decode().split()[0]

    @property
    def running(self) -> int:
        return len(self.service._lives)

    @property
    def working(self) -> int:
        """How many requests are with an instance."""
        return sum(instance.open for instance in self.service._lives)


@asynccontextmanager
async def serving(
    folder: Path, code: str = FUNCTION, most: int = 2, idle_s: float = 30, concurrency: int = 1
) -> AsyncIterator[Client]:
    source = folder / "echo.py"
    source.write_text(code)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "functions")}
    service = Service("echo", "echo", source, {}, "", public=False, concurrency=concurrency, timeout_s=PATIENCE_S)
    with (folder / "lock").open("w") as lock:
        processes = Processes(lock)
        scaler = Autoscaler(service, most, processes, env, grace_s=2, idle_s=idle_s)
        try:
            yield Client(activator.posting({"echo": scaler}), scaler)
        finally:
            await scaler.close()
            await processes.close()


async def test_the_first_request_starts_an_instance_and_the_last_is_followed_by_its_end(tmp_path: Path) -> None:
    async with serving(tmp_path, idle_s=2) as client:
        assert client.running == 0
        assert await client.call() == (200, "127.0.0.1")
        assert client.running == 1
        await until(lambda: client.running == 0)
        assert await client.call() == (200, "127.0.0.1")


async def test_requests_at_once_are_spread_over_instances_up_to_the_most(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as client:
        calls = [asyncio.create_task(client.call(f"gate={tmp_path}/go")) for _ in range(5)]
        await until(lambda: client.working == 2)
        (tmp_path / "go").touch()
        answers = await asyncio.gather(*calls)
        assert {status for status, _ in answers} == {200}
        assert {address for _, address in answers} == {"127.0.0.1", "127.0.0.2"}
        assert client.running == 2


async def test_one_after_the_other_needs_one_instance(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        assert {await client.call() for _ in range(5)} == {(200, "127.0.0.1")}
        assert client.running == 1


async def test_an_instance_takes_as_many_requests_at_a_time_as_its_service_says(tmp_path: Path) -> None:
    async with serving(tmp_path, concurrency=3) as client:
        calls = [asyncio.create_task(client.call(f"gate={tmp_path}/go")) for _ in range(3)]
        await until(lambda: client.working == 3)
        assert client.running == 1
        (tmp_path / "go").touch()
        assert await asyncio.gather(*calls) == [(200, "127.0.0.1")] * 3


async def test_the_request_and_the_answer_pass_as_they_are(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        answer = await client.post(f"http://echo.{DOMAIN}/some/path?a=b", {"x-kind": "b"}, b"hello")
        assert answer.body.decode().split() == ["127.0.0.1", "/some/path", "hello"]
        assert answer.headers["x-kind"] == "b"


async def test_any_other_address_is_asked_itself(tmp_path: Path) -> None:
    sink = Sink([web.Response(text="hello")])
    async with serving(tmp_path) as client, listening(sink.handle) as url:
        answer = await client.post(url, {"ce-id": "1"}, b"")
        assert (answer.status, answer.body, sink.ids) == (200, b"hello", ["1"])
        with pytest.raises(ConnectionRefusedError):
            await client.post("http://127.0.0.1:1/", {}, b"")
        assert client.running == 0


async def test_an_instance_that_dies_fails_its_requests_and_is_replaced(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        await client.call()
        await asyncio.sleep(1.1)
        assert (await client.call("die=1"))[0] == 502
        assert (await client.call())[0] == 200


async def test_a_function_that_cannot_start_is_tried_at_longer_and_longer_intervals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ""
    async with serving(tmp_path, code="raise SystemExit('no such work')") as client:
        began_at = time.monotonic()
        while said.count("ended by itself") < 3:
            assert (await client.call())[0] == 503
            await asyncio.sleep(0.02)
            said += capsys.readouterr().out
    assert time.monotonic() - began_at >= 0.5 + 1
    assert "no such work" in said
    assert re.findall(r"ended by itself, exit code \d+, no other is started for (\S+) s", said) == ["0.5", "1", "2"]


async def test_a_full_house_refuses_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path, most=1) as client:
        first = asyncio.create_task(client.call(f"gate={tmp_path}/go"))
        await until(lambda: client.working == 1)
        monkeypatch.setattr(autoscaler, "QUEUE_SECONDS", 0.3)
        assert (await client.call())[0] == 504
        (tmp_path / "go").touch()
        assert (await first)[0] == 200


async def test_there_is_no_other_service(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        assert (await client.call(name="nobody"))[0] == 404
