"""The systems: one file each, with its front, its worker, and how both are started.

A peer is run with the Python of its own environment, as `python -m bench.systems.NAME`. `app()` makes its front, in
which alone it needs Flask or FastAPI. What all of them need is in `job` and `front`, or `async_job` and `async_front`.
One peer is JavaScript: `bullmq.js`.
"""

import os
import subprocess
import sys
from pathlib import Path

PORT = os.environ.get("PORT", "")
REDIS_PORT = os.environ.get("REDIS_PORT", "")
REDIS_URL = f"redis://127.0.0.1:{REDIS_PORT}/0"
WORKERS = int(os.environ.get("WORKERS") or 2)
"""How many worker processes; 0: the front alone."""


def program(name: str) -> str:
    """Return the path of a command that came with a package."""
    return str(Path(sys.executable).with_name(name))


def gunicorn(module: str) -> list[str]:
    """Return the command of the front, with as many processes as gunicorn's documentation recommends.

    https://docs.gunicorn.org/en/stable/design.html#how-many-workers
    """
    workers = str(2 * (os.cpu_count() or 1) + 1)
    options = ["--worker-class", "gthread", "--workers", workers, "--threads", "4", "--bind", f"127.0.0.1:{PORT}"]
    return [program("gunicorn"), *options, f"bench.systems.{module}:app()"]


def uvicorn(module: str) -> list[str]:
    """Return the command of a front that is asyncio: a process a core, and no line in a log for each request.

    https://fastapi.tiangolo.com/deployment/server-workers/
    """
    options = ["--host", "127.0.0.1", "--port", PORT, "--workers", str(os.cpu_count() or 1), "--no-access-log"]
    return [program("uvicorn"), "--factory", f"bench.systems.{module}:app", *options]


def run(front: list[str], workers: list[list[str]]) -> None:
    """Run the front, and the workers unless none are wanted, until all have ended."""
    for process in [subprocess.Popen(command) for command in (front, *(workers if WORKERS else []))]:  # noqa: S603
        process.wait()
