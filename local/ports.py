"""Free ports of this machine."""

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOW, HIGH = 20_000, 32_000
"""Below the range from which outgoing connections take theirs, so that none of them takes it before the server."""


def free(host: str = "127.0.0.1", first: int | None = None) -> int:
    """Return a port that a server can bind on `host`: the first from `first` on, else any.

    Raises:
        OSError: this machine has no such address.
    """
    socket.create_server((host, 0)).close()
    candidates = range(first, 65536) if first else iter(lambda: random.randrange(LOW, HIGH), None)  # noqa: S311
    return next(port for port in candidates if not taken(port, host))


@contextmanager
def reserved(host: str, first: int) -> Iterator[int]:
    """Return the first free port from `first` on, which no other supervisor chooses before the block ends."""
    with (Path(tempfile.gettempdir()) / f"knative-jobs-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield free(host, first)


def taken(port: int, host: str = "localhost") -> bool:
    """Tell whether something answers on the port, or holds it.

    Both are asked, since some systems let a second server bind a port beside the first.
    """
    with suppress(OSError):
        socket.create_connection((host, port), timeout=1).close()
        return True
    try:
        socket.create_server((host, port)).close()
    except OSError:
        return True
    return False
