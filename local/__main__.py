"""`python -m local`, see `--help`."""

import argparse
import asyncio
import fcntl
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from knative_jobs.runtime.settings import settings
from local import ROOT, manifests, ports
from local.daemon import StartError
from local.supervisor import Options, supervise

GRACE_SECONDS = "5"
"""The default of WORKER_GRACE_SECONDS on one machine: nobody likes to wait after Ctrl-C."""
MAX_WORKERS = 100
LOCK_SECONDS = 2
"""How long to wait for what a killed supervisor left; the reaper takes less to end it."""
LEAST_BYTES = 1024 * 1024
"""So much room the data folder must have at the start."""


def main() -> None:
    """Run everything until Ctrl-C."""
    options = _options()
    port = _port()
    os.environ["WORKER_GRACE_SECONDS"] = os.environ.get("WORKER_GRACE_SECONDS") or GRACE_SECONDS
    for name in ("REDIS_URL", "REDIS_KEY_PREFIX"):
        os.environ.pop(name, None)  # whatever it is for, it is not for this: there is a Redis of its own
    settings()  # a value that no function could use stops the start here
    lock = _lock(options.data)
    if ports.taken(port):
        sys.exit(
            f"Port {port} is taken, or not for you to take (on macOS, AirPlay Receiver has 5000). "
            f"Choose another: PORT={port + 1 if port < 65535 else 5001} ./scripts/local"
        )
    failed = ""
    try:
        asyncio.run(supervise(Options(port=port, **vars(options)), lock))
    except* StartError as group:
        failed = "\n".join(map(str, group.exceptions))
    sys.exit(failed or None)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("scripts/local", description="Run the job API on this machine, until Ctrl-C.")
    add = parser.add_argument
    workers = f"the most worker processes of each kind of job, 1 to {MAX_WORKERS} (default: 2)"
    add("--max-workers", type=int, default=2, metavar="N", help=workers)
    add("--data", type=Path, default=ROOT / ".data", metavar="DIR", help="the folder of Redis (default: .data)")
    kinds = "the folder with a folder for each kind of job; its parent may have their work (default: knative/kinds)"
    add("--kinds", type=Path, default=manifests.KINDS, metavar="DIR", help=kinds)
    add("--reload", action="store_true", help="restart the workers when a Python file beside their work changes")
    also = f"a component to run besides: {', '.join(manifests.components())}, or a folder; may be given more than once"
    add("--component", action="append", type=_component, default=[], dest="components", metavar="NAME", help=also)
    parser.epilog = "PORT=5000 and every other setting come from the environment, as in JOB_SECONDS=3 scripts/local."
    options = parser.parse_args()
    if not 1 <= options.max_workers <= MAX_WORKERS:
        parser.error(f"--max-workers must be from 1 to {MAX_WORKERS}")
    options.data = options.data.resolve()
    if options.kinds.resolve() != manifests.KINDS:  # a repository of somebody's own, with the work beside its kinds
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, [os.environ.get("PYTHONPATH"), str(options.kinds.resolve().parent)])
        )
    options.kinds = manifests.kinds(options.kinds.resolve())
    return options


def _component(name: str) -> Path:
    """Return the folder of a component of ours, or of one that is elsewhere."""
    if name in manifests.components():
        return manifests.COMPONENTS / name
    if os.sep not in name or not any(Path(name).glob("**/*.yaml")):
        known = ", ".join(manifests.components())
        raise argparse.ArgumentTypeError(
            f"{name!r} is none of {known}, and no folder, with a / in it, that has manifests"
        )
    return Path(name).resolve()


def _port() -> int:
    text = os.environ.get("PORT") or "5000"
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        sys.exit(f"PORT={text!r} must be a number from 1 to 65535")
    return int(text)


def _lock(folder: Path) -> IO[str]:
    """Return the locked file that makes this process the only one that uses the data folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("w")
        _try_writing(folder)
    except FileExistsError:
        sys.exit(f"{folder} is not a folder; choose one with --data")
    except OSError as error:
        sys.exit(f"Data cannot be written to {folder}: {error.strerror}; choose another folder with --data")
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                sys.exit(f"{folder} is in use by another one; stop it, or choose another folder with --data")
            time.sleep(0.05)
        else:
            return file


def _try_writing(folder: Path) -> None:
    """Write LEAST_BYTES and remove them.

    Raises:
        OSError: the disk is full, or read-only.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(LEAST_BYTES))
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    main()
