"""`scripts/local --reload`: new workers when the files of their work change."""

import os
import sys
from collections.abc import Collection
from importlib.machinery import PathFinder
from pathlib import Path

from watchfiles import PythonFilter, awatch

from local.autoscaler import Autoscaler
from local.log import say


async def restart(workers: Collection[tuple[str, Autoscaler]]) -> None:
    """Restart the workers whenever a Python file beside the work of any of them has changed, for ever.

    A job that runs may end within WORKER_GRACE_SECONDS. Else it is handed back, and begins anew with the new files. The
    process of a JobSink begins with the files of that moment and goes on with them.

    Args:
        workers: each with its JOB_WORK.
    """
    folders = sorted({folder for work, _ in workers for folder in _folders(work)})
    if not folders:
        say("local", "has nothing to reload: no JOB_WORK names a module")
        return
    say("local", f"restarts the workers when a Python file changes in {', '.join(map(str, folders))}")
    async for changes in awatch(*folders, watch_filter=PythonFilter()):
        say("local", f"{', '.join(sorted(path for _, path in changes))} changed: the workers are restarted")
        for _, worker in workers:
            worker.restart()


def _folders(work: str) -> list[Path]:
    """Return where the package of this work is, or the folder of its module; nothing where no module is named."""
    package = "" if "://" in work else work.partition(":")[0].partition(".")[0]
    # As the worker's own process looks for it.
    found = PathFinder.find_spec(package, [*sys.path, os.getcwd()]) if package.isidentifier() else None
    if not found:
        return []
    return [Path(at) for at in found.submodule_search_locations or [str(Path(str(found.origin)).parent)]]
