"""A cluster that kubectl can be pointed to, and `scripts/kind` pointed to it."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.api_server import CORE, EVENTING, SERVING, ApiServer
from tests.conftest import ROOT
from tests.manifests.rendered import lacking

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cluster() -> Iterator[ApiServer]:
    """A cluster with Knative, and nothing else."""
    if not shutil.which("kubectl"):
        lacking("not run: kubectl is missing")
    server = ApiServer([*CORE, *SERVING, *EVENTING])
    yield server
    server.stop()


@pytest.fixture
def kind(cluster: ApiServer, tmp_path: Path) -> Run:
    """Run a step of scripts/kind on it."""
    env = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig(tmp_path)), "HOME": str(tmp_path)}

    def run(*arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
        command = [str(ROOT / "scripts" / "kind"), *arguments]
        return subprocess.run(command, env=env, stdin=stdin, capture_output=True, text=True, check=False)

    return run
