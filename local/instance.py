"""One process that serves a cluster-local function, at an address of its own."""

import asyncio
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from local import FUNCTIONS, ports
from local.manifests import Service
from local.processes import Processes


def command(app: Path, host: str, port: int, interface: str = "asgi") -> list[str | Path]:
    """Return the command that serves the application `app` of a file, as the container image does."""
    # By its path, and with a folder of ours where granian would take the current one: no file there is a library.
    options = [
        "--working-dir",
        str(FUNCTIONS),
        "--interface",
        interface,
        "--no-ws",
        "--log-level",
        "error",
        "--host",
        host,
        "--port",
        str(port),
    ]
    return [sys.executable, "-P", "-m", "granian", *options, f"{app}:app"]


@dataclass(eq=False)
class Instance:
    """Where the process is, and how it is used."""

    address: str
    """Its own among the instances of its Service: 127.0.0.1, 127.0.0.2, ..."""
    host: str
    port: int
    ready: bool = False
    open: int = 0
    last_used: float = 0

    async def start(self, service: Service, processes: Processes, env: Mapping[str, str]) -> asyncio.subprocess.Process:
        """Start the process."""
        own = {
            "FUNCTION_TARGET": service.target,
            "FUNCTION_SOURCE": str(service.source),
            "PORT": str(self.port),
            "WORKER_IP": self.address,
        }
        interface = service.server.get("GRANIAN_INTERFACE", "asgi")
        served = command(FUNCTIONS / "knative_jobs" / "server" / "app.py", self.host, self.port, interface)
        return await processes.start(service.name, served, {**service.env, **env, **own})

    async def accepts(self) -> bool:
        """Tell whether the process accepts connections, which it does once it has loaded the function."""
        with suppress(OSError):
            _, writer = await asyncio.open_connection(self.host, self.port)
            writer.close()
            return True
        return False


def at_free_address(others: Collection[Instance]) -> Instance:
    """Return an instance at the lowest address that none of the others has."""
    taken = {other.address for other in others}
    address = next(a for a in (f"127.0.0.{n}" for n in range(1, 255)) if a not in taken)
    try:
        return Instance(address, address, ports.free(address))
    except OSError:  # macOS has 127.0.0.1 alone
        return Instance(address, "127.0.0.1", ports.free())
