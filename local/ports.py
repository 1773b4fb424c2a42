"""Free ports of this machine."""

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

LOW, HIGH = 20_000, 32_000
"""Below the range from which outgoing connections take theirs, so that none of them takes it before the server."""


def free(host: str = "127.0.0.1") -> int:
    """Return a port that a server can bind on `host`.

    Raises:
        OSError: this machine has no such address.
    """
    socket.create_server((host, 0)).close()
    candidates = iter(lambda: random.randrange(LOW, HIGH), None)  # noqa: S311
    return next(port for port in candidates if not taken(port, host))


@contextmanager
def reserved(host: str, first: int) -> Iterator[int]:
    """Return the first free port from `first` on. No other supervisor chooses it before the block ends.

    So it stays ours while its server is down and is started again.
    """
    for port in range(first, 65536):
        with (Path(tempfile.gettempdir()) / f"knative-jobs-{os.getuid()}-{port}.lock").open("w") as lock:
            if _locked(lock) and not taken(port, host):
                yield port
                return


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


def _locked(file: IO[str]) -> bool:
    """Lock the file unless another process has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
