"""A primary and its replica behind one address, for tests of what a failover does."""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import urllib3

from harness.proxy import Proxy
from tests.conftest import Function, Redis, eventually

JOB = b'{"start": "1", "end": "2"}'


class Failover:
    """A primary and its replica behind one address, as a Kubernetes Service is one.

    Connections that are open stay open when the address moves, and go on leading to the old primary.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "primary").mkdir(parents=True)
        (folder / "replica").mkdir()
        self.old, self.new = Redis(folder / "primary"), Redis(folder / "replica")
        for server, other in ((self.old, self.new), (self.new, self.old)):
            server.client.config_set("masteruser", "admin")
            server.client.config_set("masterauth", other.passwords["admin"])
            server.client.config_set("repl-diskless-sync-delay", "0")
        self.new.client.replicaof("127.0.0.1", self.old.port)
        self.address = Proxy()
        self.address.to_port = self.old.port
        self.url = f"redis://127.0.0.1:{self.address.port}/0"
        self.wait_until_in_step()

    def wait_until_in_step(self) -> None:
        def in_step() -> bool:
            replica = self.new.client.info("replication")
            at = self.old.client.info("replication")["master_repl_offset"]
            return replica["master_link_status"] == "up" and replica.get("slave_repl_offset") == at

        eventually(in_step)

    def happen(self, isolated: bool = False) -> None:
        """Promote the replica, and let the address lead to it.

        The old primary becomes a replica of the new one, or when `isolated` one that hears of nothing any more.
        """
        self.wait_until_in_step()
        self.new.client.replicaof("NO", "ONE")
        self.old.client.replicaof("127.0.0.1", 9 if isolated else self.new.port)
        self.address.to_port = self.new.port

    def stop(self) -> None:
        for server in (self.old, self.new):
            server.kill()
        self.address.close()


def soon(act: Callable[[], object]) -> None:
    """Do it in the background. The test may end before the answer comes."""

    def acting() -> None:
        with suppress(urllib3.exceptions.HTTPError):
            act()

    threading.Thread(target=acting).start()


def submit(jobs: Function) -> str:
    answer = jobs.request("POST", "/jobs", body=JOB)
    assert answer.status == 202, answer.data
    return str(answer.json()["id"])
