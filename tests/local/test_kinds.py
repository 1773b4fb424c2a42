"""Kinds of job on one machine: the folders that a cluster gets, and with them the work of somebody's own repository."""

from pathlib import Path

from tests.conftest import eventually, http
from tests.local.conftest import Platform

WORK = """
import os, time

def gated(job):
    while not os.path.exists(job.start):
        time.sleep(0.02)
    return "gated"

def settings(job):
    names = ("JOB_KIND", "JOB_TIMEOUT_SECONDS", "JOB_MAX_ATTEMPTS", "WORKER_GRACE_SECONDS")
    return [os.environ.get(name) for name in names]
"""
SERVICE = "https://git.example.com/knative-jobs//knative/worker/as-service?ref=v0.2.0"
JOBSINK = "../../../knative/worker/as-jobsink"


def kinds(folder: Path, **texts: str) -> Path:
    """A repository of somebody's own: the work, and a folder for each kind."""
    (folder / "mine.py").write_text(WORK)
    for name, text in texts.items():
        kind = folder / "kinds" / name
        kind.mkdir(parents=True)
        (kind / "kind.env").write_text(f"JOB_KIND={name}\nWORKER_CONCURRENCY=1\n{text}\n")
        (kind / "kustomization.yaml").write_text(f"{{kind: Component, components: ['{SERVICE}']}}")
    return folder / "kinds"


def test_a_slow_kind_holds_up_no_other(tmp_path: Path) -> None:
    folder = kinds(tmp_path, slow="JOB_WORK=mine:gated", fast="JOB_WORK=mine:settings")
    with Platform(tmp_path, "--kinds", str(folder), JOB_SECONDS="0") as platform:
        slow = [platform.submit(kind="slow", start=f"{tmp_path}/go", end="") for _ in range(5)]
        eventually(lambda: len(platform.get("/inprogress_jobs").json()) == 2)  # all workers that it may have
        for _ in range(3):
            assert platform.done(platform.submit(kind="fast", start=1, end=2))["kind"] == "fast"
            assert "kind" not in platform.done(platform.submit())
        assert len(platform.get("/inprogress_jobs").json()) == 2
        (tmp_path / "go").touch()
        assert {platform.done(job_id)["result"] for job_id in slow} == {"gated"}
        assert "worker-slow | INFO job " in platform.said()


def test_what_a_kind_says_goes_before_what_is_said_for_all(tmp_path: Path) -> None:
    folder = kinds(tmp_path, patient="JOB_WORK=mine:settings\nJOB_TIMEOUT_SECONDS=500\nWORKER_GRACE_SECONDS=90")
    settings = {"JOB_WORK": "mine:settings", "JOB_TIMEOUT_SECONDS": "100", "JOB_MAX_ATTEMPTS": "2"}
    with Platform(tmp_path, "--kinds", str(folder), **settings) as platform:
        patient, default = platform.submit(kind="patient", start=1, end=2), platform.submit()
        assert platform.done(patient)["result"] == ["patient", "500", "2", "5"]
        assert platform.done(default)["result"] == ["default", "100", "2", "5"]


def test_kinds_with_a_service_and_with_a_job_sink_live_together(tmp_path: Path) -> None:
    folder = kinds(tmp_path, short="JOB_WORK=mine:settings", long="JOB_WORK=mine:settings\nJOB_TIMEOUT_SECONDS=7200")
    file = folder / "long" / "kustomization.yaml"
    file.write_text(file.read_text().replace("as-service", "as-jobsink"))
    with Platform(tmp_path, "--kinds", str(folder), JOB_TIMEOUT_SECONDS="100", JOB_MAX_ATTEMPTS="3") as platform:
        jobs = {kind: [platform.submit(kind=kind, start=1, end=2) for _ in range(4)] for kind in ("short", "long")}
        for kind, timeout in (("short", "100"), ("long", "7200")):
            for job_id in jobs[kind]:
                assert platform.done(job_id)["result"] == [kind, timeout, "3", "5"]


def test_a_kind_that_is_not_there_is_refused_and_those_that_are_there_are_named(tmp_path: Path) -> None:
    folder = kinds(tmp_path, mine="JOB_WORK=mine:settings")
    with Platform(tmp_path, "--kinds", str(folder)) as platform:
        answer = http.request("POST", f"{platform.url}/jobs", json={"kind": "other", "start": 1, "end": 2})
        assert answer.status == 400
        assert "default, mine" in answer.json()["detail"]


def test_a_folder_without_kinds_ends_the_start_with_one_line(tmp_path: Path) -> None:
    platform = Platform(tmp_path, "--kinds", str(tmp_path / "nowhere"))
    assert platform.refused() == f"{tmp_path}/nowhere has no folder with a kind.env, as a kind of job is one\n"


class TestReload:
    """`--reload`: the jobs that begin after an edit are done by the new work, and none is lost."""

    RETURNS = "def work(job):\n    return {!r}\n"
    WAITS = """
import os, time

def work(job):
    while not os.path.exists(job.start):
        time.sleep(0.02)
    return {!r}
"""

    def edit(self, platform: Platform, text: str) -> None:
        """Change the work, and wait until that is noticed: at first nothing looks yet."""
        said = platform.said().count("the workers are restarted")

        def noticed() -> bool:
            (platform.folder / "edited.py").write_text(text)
            return platform.said().count("the workers are restarted") > said

        eventually(noticed)

    def test_an_edited_function_gives_the_new_result(self, tmp_path: Path) -> None:
        (tmp_path / "edited.py").write_text(self.RETURNS.format("old"))
        with Platform(tmp_path, "--reload", JOB_WORK="edited:work") as platform:
            assert platform.done(platform.submit())["result"] == "old"
            self.edit(platform, self.RETURNS.format("new one"))
            assert platform.done(platform.submit())["result"] == "new one"

    def test_a_mistake_is_no_end_of_it(self, tmp_path: Path) -> None:
        (tmp_path / "edited.py").write_text(self.RETURNS.format("old"))
        with Platform(tmp_path, "--reload", JOB_WORK="edited:work") as platform:
            assert platform.done(platform.submit())["result"] == "old"
            self.edit(platform, "def work(job:\n")
            waiting = platform.submit()
            eventually(lambda: "SyntaxError" in platform.said())
            self.edit(platform, self.RETURNS.format("mended"))
            assert platform.done(waiting)["result"] == "mended"

    def test_a_job_that_runs_ends_in_its_grace_period(self, tmp_path: Path) -> None:
        (tmp_path / "edited.py").write_text(self.WAITS.format("old"))
        with Platform(tmp_path, "--reload", JOB_WORK="edited:work", WORKER_GRACE_SECONDS="100") as platform:
            running = platform.submit(start=f"{tmp_path}/go", end="")
            eventually(lambda: platform.status(running) == "in progress")
            self.edit(platform, self.RETURNS.format("new one"))
            (tmp_path / "go").touch()
            assert platform.done(running)["result"] == "old"
            eventually(lambda: f"job {running} attempt 1: complete" in platform.said())

    def test_a_job_that_does_not_begins_anew_with_the_new_work(self, tmp_path: Path) -> None:
        (tmp_path / "edited.py").write_text(self.WAITS.format("old"))
        with Platform(tmp_path, "--reload", JOB_WORK="edited:work", WORKER_GRACE_SECONDS="0.1") as platform:
            running = platform.submit(start=f"{tmp_path}/never", end="")
            eventually(lambda: platform.status(running) == "in progress")
            self.edit(platform, self.RETURNS.format("new one"))
            assert platform.done(running)["result"] == "new one"
