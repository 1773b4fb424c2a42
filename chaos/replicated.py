"""A replicated Redis on this machine: three servers, one of them the primary, and three Sentinels.

Every server is behind a proxy, by whose address all others know it. So its machine can be made to fail: what was on its
way from there is lost with it.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from harness.proxy import HOST, Proxy
from harness.waiting import until
from local import ports, redis_server, redis_users

REPLICAS = 2
NAME = "mymaster"
"""What the Sentinels call the primary."""
DOWN_AFTER_SECONDS = 1.5
"""A Sentinel takes a server that is silent for so long for down."""
REPLICATION_SECONDS = 0.03
"""How long a write is on its way to a replica: about that of two datacentres of one region, and their disks."""
OWN_USERS = ("replica", "sentinel", "admin")
PASSWORD = "for-some-minutes-of-one-machine"  # noqa: S105
START_SECONDS, PROMOTION_SECONDS, SYNC_SECONDS = 30, 60, 60


@dataclass
class Server:
    """One of the three."""

    folder: Path
    port: int
    proxy: Proxy = field(default_factory=Proxy)
    process: "subprocess.Popen[bytes] | None" = None


class Replicated:
    """The three servers and the three Sentinels."""

    def __init__(self, folder: Path) -> None:
        """Choose the addresses. Nothing runs yet."""
        self._folder = folder
        self.servers = [Server(folder / f"redis-{n}", ports.free(HOST)) for n in range(1 + REPLICAS)]
        for server in self.servers:
            server.proxy.to_port = server.port
            server.proxy.replication_delay_s = REPLICATION_SECONDS
        self.sentinel_ports = [ports.free(HOST) for _ in range(3)]
        self.url = f"redis+sentinel://{','.join(f'{HOST}:{port}' for port in self.sentinel_ports)}/{NAME}/0"
        self._sentinels: list[subprocess.Popen[bytes]] = []
        self._one_at_a_time = threading.Lock()

    def start(self, acl: str) -> None:
        """Start everything, for the users of this ACL file and three more: see OWN_USERS.

        Raises:
            RuntimeError: it did not start.
        """
        rules = redis_users.rules() | {"admin": redis_users.ADMIN}
        own = redis_users.acl({name: rules[name] for name in OWN_USERS}, dict.fromkeys(OWN_USERS, PASSWORD))
        others = [line for line in acl.splitlines(keepends=True) if line.split()[1] not in OWN_USERS]
        for server in self.servers:
            server.folder.mkdir(parents=True)
            (server.folder / redis_users.FILE).write_text("".join(others) + own)
            self._start(server, self.servers[0])
        until(lambda: self._in_step(self.servers[0]), START_SECONDS)
        for number, port in enumerate(self.sentinel_ports):
            self._start_sentinel(number, port)
        if not until(lambda: all(map(self._knows_all, self.sentinel_ports)), START_SECONDS):
            self.stop()
            raise RuntimeError(f"The Sentinels do not see three servers; their logs are in {self._folder}")

    def stop(self) -> None:
        """End everything."""
        for process in (*self._sentinels, *(server.process for server in self.servers if server.process)):
            process.kill()
            process.wait()
        for server in self.servers:
            server.proxy.close()

    @contextmanager
    def stopping(self) -> "Iterator[redis.Redis]":
        """Connect to the primary for the last time, and end everything then."""
        try:
            with self.client() as client:
                yield client
        finally:
            self.stop()

    def primary(self) -> Server | None:
        """Return the server that the Sentinels take for the primary; None when they do not answer."""
        for port in self.sentinel_ports:
            with suppress(redis.RedisError), redis.Redis(HOST, port, socket_timeout=1, retry=_never()) as sentinel:
                if found := sentinel.sentinel_get_master_addr_by_name(NAME):
                    return next(server for server in self.servers if server.proxy.port == int(found[1]))
        return None

    @contextmanager
    def client(self, server: Server | None = None) -> "Iterator[redis.Redis]":
        """Connect to a server, or to the primary, past its proxy and with every right.

        Raises:
            redis.ConnectionError: the Sentinels do not answer.
        """
        server = server or self.primary()
        if not server:
            raise redis.ConnectionError("no Sentinel knows the primary")
        with redis.Redis(
            HOST,
            server.port,
            username="admin",
            password=PASSWORD,
            decode_responses=True,
            socket_timeout=5,
            retry=_never(),
        ) as client:
            yield client

    def kill_primary(self) -> bool:
        """Let the machine of the primary fail, and start it again once another is promoted. Return whether one was."""

        def kill(old: Server) -> None:
            assert old.process  # noqa: S101
            old.process.kill()
            old.proxy.cut()
            old.process.wait()

        return self._fail_over(kill, lambda old, new: self._start(old, new))

    def pause_primary(self) -> bool:
        """Stop the process of the primary, and let it go on once another is promoted. Return whether one was."""

        def stop(old: Server) -> None:
            assert old.process  # noqa: S101
            os.kill(old.process.pid, signal.SIGSTOP)

        def go_on(old: Server, _: Server) -> None:
            assert old.process  # noqa: S101
            os.kill(old.process.pid, signal.SIGCONT)

        return self._fail_over(stop, go_on)

    def _fail_over(self, fail: Callable[[Server], None], mend: Callable[[Server, Server], None]) -> bool:
        with self._one_at_a_time:
            old = self.primary()
            if not old or not until(lambda: self._in_step(old), SYNC_SECONDS):
                return False
            fail(old)
            promoted = until(lambda: self._other_than(old), PROMOTION_SECONDS)
            mend(old, promoted or old)
            return bool(promoted)

    def _other_than(self, old: Server) -> Server | None:
        now = self.primary()
        return now if now is not old else None

    def _in_step(self, primary: Server) -> bool:
        """Tell whether this is the primary, and both others follow it."""
        with suppress(redis.RedisError), self.client(primary) as client:
            found = client.info("replication")
            states = [found.get(f"slave{number}", {}).get("state") for number in (0, 1)]
            return found["role"] == "master" and states == ["online", "online"]
        return False

    def _start(self, server: Server, primary: Server) -> None:
        options = {
            "replica-announce-ip": HOST,
            "replica-announce-port": server.proxy.port,
            "masteruser": "replica",
            "masterauth": PASSWORD,
            "repl-diskless-sync-delay": 0,
            # An old primary that comes back takes no writes: its replicas follow another.
            "min-replicas-to-write": 1,
        }
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        if server is not primary:
            words += ["--replicaof", f"{HOST} {primary.proxy.port}"]
        command = redis_server.command(server.port, server.folder, {}, server.folder / redis_users.FILE)
        server.process = subprocess.Popen([*command, *words], stdout=subprocess.DEVNULL)  # noqa: S603

    def _start_sentinel(self, number: int, port: int) -> None:
        folder = self._folder / f"sentinel-{number}"
        folder.mkdir()
        lines = [
            f"port {port}",
            f"bind {HOST}",
            f"dir {folder}",
            "logfile sentinel.log",
            f"sentinel monitor {NAME} {HOST} {self.servers[0].proxy.port} 2",
            f"sentinel auth-user {NAME} sentinel",
            f"sentinel auth-pass {NAME} {PASSWORD}",
            f"sentinel down-after-milliseconds {NAME} {int(DOWN_AFTER_SECONDS * 1000)}",
            f"sentinel failover-timeout {NAME} 5000",
        ]
        file = folder / "sentinel.conf"
        file.write_text("\n".join(lines) + "\n")
        command: list[str | Path] = [redis_server.binary(), file, "--sentinel"]
        self._sentinels.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))  # noqa: S603

    def _knows_all(self, port: int) -> bool:
        with suppress(redis.RedisError), redis.Redis(HOST, port, socket_timeout=1, retry=_never()) as sentinel:
            found = sentinel.sentinel_master(NAME)
            return bool(found["num-slaves"] == 2 and found["num-other-sentinels"] == 2)
        return False


def _never() -> Retry:
    return Retry(NoBackoff(), 0)
