"""The JobSink of local mode: a process for each event, none for one that it remembers."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from knative_jobs.events.cloudevent import Event
from local import jobsink, manifests
from local.jobsink import JobSink
from local.processes import Processes
from tests.local.conftest import until

PROCESS = """
import os, sys, time
with open("OUT", "a") as out:
    print("began", os.environ["WORKER_IP"], open(sys.argv[1]).read(), file=out, flush=True)
    time.sleep(SECONDS)
    print("ended", file=out, flush=True)
sys.exit(CODE)
"""


class Sink:
    def __init__(self, job_sink: JobSink, out: Path) -> None:
        self.job_sink, self.out = job_sink, out

    async def send(self, event_id: str, source: str = "/jobs") -> int:
        attributes = {"specversion": "1.0", "type": "t", "source": source, "id": event_id}
        event = Event(attributes | {"datacontenttype": "application/json"}, b'{"a": 1}')
        return (await self.job_sink.receive(event.headers(), event.data)).status

    def lines(self, first_word: str) -> list[str]:
        text = self.out.read_text() if self.out.exists() else ""
        return [line for line in text.splitlines() if line.startswith(first_word)]


@asynccontextmanager
async def sinking(
    folder: Path, most: int = 2, seconds: float = 0, code: int = 0, backoff_limit: int = 0, ttl_s: float = 60
) -> AsyncIterator[Sink]:
    out = folder / "out"
    script = PROCESS.replace("OUT", str(out)).replace("SECONDS", str(seconds)).replace("CODE", str(code))
    declared = manifests.JobSink("worker", ["python", "-c", script], {}, backoff_limit, ttl_s)
    with (folder / "lock").open("w") as lock:
        processes = Processes(lock)
        job_sink = JobSink(declared, most, processes, os.environ, 1, folder)
        try:
            yield Sink(job_sink, out)
        finally:
            await job_sink.close()
            await processes.close()


async def test_an_event_starts_a_process_with_the_event_as_a_file(tmp_path: Path) -> None:
    async with sinking(tmp_path) as sink:
        assert await sink.send("1") == 202
        await until(lambda: sink.lines("ended"))
        _, address, event = sink.lines("began")[0].split(" ", 2)
        assert address == "127.0.0.1"
        assert json.loads(event) == {
            "specversion": "1.0",
            "type": "t",
            "source": "/jobs",
            "id": "1",
            "datacontenttype": "application/json",
            "data": {"a": 1},
        }


async def test_the_same_event_starts_nothing_as_long_as_it_is_remembered(tmp_path: Path) -> None:
    async with sinking(tmp_path, ttl_s=1) as sink:
        for _ in range(3):
            assert await sink.send("1") == 202
        await sink.send("1", source="/others")
        await sink.send("2")
        await until(lambda: len(sink.lines("ended")) == 3)
        await sink.send("1")
        await until(lambda: not sink.job_sink._kept)
        assert len(sink.lines("began")) == 3
        await sink.send("1")
        await until(lambda: len(sink.lines("began")) == 4)


async def test_no_more_processes_run_at_once_than_there_is_room_for(tmp_path: Path) -> None:
    async with sinking(tmp_path, most=1, seconds=0.3) as sink:
        for n in range(3):
            await sink.send(str(n))
        await until(lambda: len(sink.lines("ended")) == 3)
        assert [line.split()[0] for line in sink.out.read_text().splitlines()] == ["began", "ended"] * 3


async def test_a_process_that_fails_is_started_again_and_then_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobsink, "BACKOFF_SECONDS", 0.1)
    async with sinking(tmp_path, code=1, backoff_limit=2) as sink:
        await sink.send("1")
        said = ""

        def given_up() -> bool:
            nonlocal said
            said += capsys.readouterr().out
            return "given up" in said

        await until(given_up)
        assert len(sink.lines("began")) == 3
        await sink.send("1")
        await asyncio.sleep(0.3)
        assert len(sink.lines("began")) == 3, "a Job that has failed is remembered too"


async def test_the_end_stops_what_runs(tmp_path: Path) -> None:
    async with sinking(tmp_path, seconds=60) as sink:
        await sink.send("1")
        await until(lambda: sink.lines("began"))
    assert not sink.lines("ended")


async def test_what_is_no_event_is_refused(tmp_path: Path) -> None:
    async with sinking(tmp_path) as sink:
        assert (await sink.job_sink.receive({}, b"")).status == 400
