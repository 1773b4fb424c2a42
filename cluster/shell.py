"""Running commands, and telling what goes on."""

# ruff: noqa: S603
import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

GET = {
    "docker": "https://docs.docker.com/get-started/get-docker/",
    "kind": "https://kind.sigs.k8s.io/docs/user/quick-start/#installation (v0.32 or newer)",
    "kubectl": "https://kubernetes.io/docs/tasks/tools/",
}
"""Where each tool comes from."""
Command = tuple[str, ...]


def need(*tools: str) -> None:
    """Exit, and say how to get them, when tools are missing."""
    missing = [f"{tool} is missing: {GET[tool]}" for tool in tools if not shutil.which(tool)]
    if missing:
        sys.exit("\n".join(missing))
    if "docker" in tools:
        run("docker", "version")


def run(*command: str, text: str | None = None, may_fail: bool = False) -> str:
    """Return what a command prints. When it fails, show what it says and exit, unless it may fail."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode and not may_fail:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def retry(*command: str, text: str | None = None) -> str:
    """Run a command that a webhook which has only just started may refuse."""
    for _ in range(5):
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode == 0 or "failed calling webhook" not in done.stderr:
            break
        time.sleep(3)
    return run(*command, text=text) if done.returncode else done.stdout.strip()


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Print what begins, and how long it took."""
    print(f"==> {title}", flush=True)
    began = time.monotonic()
    yield
    print(f"    {time.monotonic() - began:.0f} s", flush=True)
