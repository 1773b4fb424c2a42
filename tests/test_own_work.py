"""`examples/own-work`: a repository of somebody's own runs its work in the image, in a cluster and on one machine."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.local.conftest import Platform
from tests.manifests.rendered import build, is_worker, pod_of, reads

OWN = ROOT / "examples" / "own-work"
REMOTE = re.compile(r"https://git\.example\.com/knative-jobs\.git//(\S+)\?ref=v(\S+)")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A copy outside of this checkout."""
    return Path(shutil.copytree(OWN, tmp_path / "own"))


def instructions(dockerfile: Path) -> list[list[str]]:
    return [line.split() for line in dockerfile.read_text().splitlines() if line and not line.startswith("#")]


def test_its_image_is_ours_with_the_work_where_a_worker_finds_it(own: Path, tmp_path: Path) -> None:
    """The tree that docker would make, without docker."""
    app = tmp_path / "app"
    for folder in ("functions", "examples"):
        assert ["COPY", "--from=build", f"/app/{folder}", folder] in instructions(ROOT / "Dockerfile")
        shutil.copytree(ROOT / folder, app / folder)
    base, *copies = instructions(own / "Dockerfile")
    assert base == ["FROM", f"registry.example.com/knative-jobs:{VERSION}"]
    for copy, what, to in copies:
        assert copy == "COPY"
        shutil.copy(own / what, app / to)
    [kind] = (own / "kinds").iterdir()
    [work] = re.findall(r"^JOB_WORK=(.*)$", (kind / "kind.env").read_text(), re.MULTILINE)
    found = f"from knative_jobs.work import api; print(api.find({work!r}, 0).__code__.co_filename)"
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(app / "functions")}
    done = subprocess.run([sys.executable, "-P", "-c", found], cwd=app, env=env, capture_output=True, text=True)
    assert done.stdout == f"{app}/functions/work.py\n", done.stderr


def test_its_kustomization_takes_all_else_from_this_repository(own: Path) -> None:
    here = os.path.relpath(ROOT, own.resolve())
    for file, way in ((own / "kustomization.yaml", here), (own / "kinds/totals/kustomization.yaml", f"../../{here}")):
        assert {version for _, version in REMOTE.findall(file.read_text())} == {VERSION}
        file.write_text(REMOTE.sub(rf"{way}/\1", file.read_text()))
    manifests = build(own)
    [settings] = [m["data"] for m in manifests if m["kind"] == "ConfigMap" and "K_SINK" in m["data"]]
    assert settings["JOB_KINDS"].split() == ["default", "totals", "word-count"]
    workers = {m["metadata"]["name"]: m for m in manifests if is_worker(m)}
    assert workers.keys() == {"worker", "worker-totals", "worker-word-count"}
    assert reads(workers["worker-totals"], manifests)["JOB_WORK"] == "work:totals"
    for worker in workers.values():
        [container] = pod_of(worker)["containers"]
        assert container["image"] == "registry.example.com/ours:1"
        assert worker["metadata"]["namespace"] == "knative-jobs"


def test_its_work_runs_on_one_machine(own: Path) -> None:
    with Platform(own, "--kinds", str(own / "kinds")) as platform:
        job = platform.submit(kind="totals", input={"csv": "a,b\n1,2\n3,4\n"})
        assert platform.done(job)["result"] == {"a": 4, "b": 6}
