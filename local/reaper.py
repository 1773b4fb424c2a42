"""Kills what a supervisor leaves behind when it is killed itself.

Each line of the standard input names all process groups of the moment; its end means that the supervisor is gone.
The lock on the data folder is inherited and held until then, so that a next supervisor waits for a clean machine.
"""

import os
import signal
import sys
import time
from contextlib import suppress

WAIT_SECONDS = 1


def main() -> None:
    """Read until the end, then kill."""
    groups: list[int] = []
    for line in sys.stdin:
        groups = [int(group) for group in line.split()]
    deadline = time.monotonic() + WAIT_SECONDS
    while groups and time.monotonic() < deadline:
        groups = [group for group in groups if _kill(group)]
        time.sleep(0.02)


def _kill(group: int) -> bool:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
        return True
    return False


if __name__ == "__main__":
    main()
