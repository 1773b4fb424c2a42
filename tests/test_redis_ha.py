"""components/redis-ha: its very start scripts, in three pods that are processes on this machine.

A pod has a name and an address, as in a cluster: `/etc/hosts` says which, in a mount namespace of each process. So a
pod that starts anew may have another address.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis
import yaml

from local import redis_server
from tests.conftest import NEVER, ROOT, Function, Start, eventually
from tests.failover import JOB, submit
from tests.test_backup import backup

BASE, COMPONENT = ROOT / "knative" / "base" / "redis", ROOT / "knative" / "components" / "redis-ha"
[SETTINGS] = [
    dict(line.split("=", 1) for line in generator["literals"])
    for generator in yaml.safe_load((COMPONENT / "kustomization.yaml").read_text())["configMapGenerator"]
    if generator["name"] == "settings"
]
[DEPLOYMENT] = [m for m in yaml.safe_load_all((BASE / "redis.yaml").read_text()) if m["kind"] == "Deployment"]
OPTIONS = DEPLOYMENT["spec"]["template"]["spec"]["containers"][0]["args"]
USERS = ("replica", "sentinel", "submitter", "worker", "reader")
# The one command of it that the scripts call, where there is no redis-cli.
REDIS_CLI = """
import socket, sys
_, _, host, _, port, *command = sys.argv
with socket.create_connection((host, int(port)), 2) as connection, connection.makefile() as replies:
    connection.sendall(" ".join(command).encode() + b"\\r\\n")
    for _ in range(int(replies.readline()[1:])):
        replies.readline()
        print(replies.readline().strip())
"""


def within(hosts: Path) -> list[str]:
    """The beginning of a command that sees this file as /etc/hosts."""
    return ["unshare", "--mount", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"]


def can_have_own_names(folder: Path) -> bool:
    with suppress(FileNotFoundError):
        command = [*within(folder / "hosts"), "true"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return False


class Pods:
    """Three pods, each with a Redis and a Sentinel and a volume."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts = folder / "hosts"
        number = os.getpid()
        self._net = f"127.{1 + number % 250}.{number // 250 % 250}"
        self.addresses = [f"{self._net}.{n + 1}" for n in range(3)]
        self._running: list[list[subprocess.Popen[bytes]]] = [[], [], []]
        (folder / "bin").mkdir()
        (folder / "bin" / "redis-server").symlink_to(redis_server.binary())
        if not shutil.which("redis-cli"):
            client = folder / "bin" / "redis-cli"
            client.write_text(f"#!{sys.executable}\n{REDIS_CLI}")
            client.chmod(0o755)
        (folder / "passwords").mkdir()
        for user in USERS:
            (folder / "passwords" / user).write_text(f"password-of-{user}")
        self._name()

    def start(self, *which: int) -> None:
        """Start pods, with a new address if they have been there before."""
        for n in which:
            if (self.folder / f"pod-{n}").exists():
                self.addresses[n] = f"{self._net}.{10 + int(self.addresses[n].rpartition('.')[2])}"
        self._name()
        for n in which:
            own = self.folder / f"pod-{n}"
            (own / "data").mkdir(parents=True, exist_ok=True)
            env = {
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "OWN": f"redis-{n}.redis-nodes",
                "DATA": str(own / "data"),
                "BASE": str(BASE),
                "CONFIG": str(own / "replication.conf"),
                "ACL_FILE": str(own / "users.acl"),
                "SENTINEL_ACL_FILE": str(own / "sentinel.acl"),
                "PASSWORDS": str(self.folder / "passwords"),
                "REPLICA_PASSWORD": "password-of-replica",
                "SENTINEL_PASSWORD": "password-of-sentinel",
            }
            here = ["--bind", self.addresses[n]]
            containers = {"server.sh": [*OPTIONS, *here, "--dir", str(own / "data")], "sentinel.sh": here}
            self._running[n] = [self._run(own, script, options, env) for script, options in containers.items()]

    def _run(self, own: Path, script: str, options: list[str], env: dict[str, str]) -> "subprocess.Popen[bytes]":
        command = [*within(self.hosts), "sh", COMPONENT / script, *options]
        with (own / f"{script}.log").open("ab") as log:
            return subprocess.Popen(command, env=env, stdout=log, stderr=log)

    def fail(self, *which: int) -> None:
        """End all that is in these pods, at once, as when their machines fail."""
        for n in which:
            for process in self._running[n]:
                process.send_signal(signal.SIGKILL)
            for process in self._running[n]:
                process.wait()

    def server(self, n: int) -> "redis.Redis":
        """The Redis of a pod, as a user who may read."""
        user = {"username": "worker", "password": "password-of-worker"}
        return redis.Redis(self.addresses[n], 6379, **user, decode_responses=True, retry=NEVER)

    def sentinel(self, n: int, **user: str) -> "redis.Redis":
        return redis.Redis(self.addresses[n], 26379, **user, decode_responses=True, retry=NEVER)

    def data(self, n: int) -> Path:
        return self.folder / f"pod-{n}" / "data"

    def primary(self) -> int | None:
        """The pod that all Sentinels which run take for the primary."""
        said = {self._said_by(n)["ip"] for n in range(3) if self._running[n][0].poll() is None}
        return int(said.pop().split(".")[0].removeprefix("redis-")) if len(said) == 1 else None

    def are_in_step(self) -> bool:
        """Whether two replicas follow the primary, and each Sentinel knows all others."""
        try:
            primary = self.primary()
            roles = [self.server(n).role() for n in range(3)]
            known = [self._said_by(n) for n in range(3)]
        except redis.RedisError:
            return False
        return (
            [n for n, role in enumerate(roles) if role[0] == "master"] == [primary]
            and all(role[3] == "connected" for role in roles if role[0] == "slave")
            and all(one["num-slaves"] == 2 == one["num-other-sentinels"] for one in known)
            and all(one["flags"] == "master" for one in known)
        )

    def log(self) -> str:
        return "\n".join(f"{path}:\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("pod-*/*.log")))

    def _said_by(self, n: int) -> dict[str, object]:
        return dict(self.sentinel(n).sentinel_master("jobs"))

    def _name(self) -> None:
        lines = [f"{address} redis-{n}.redis-nodes\n" for n, address in enumerate(self.addresses)]
        self.hosts.write_text("127.0.0.1 localhost\n" + "".join(lines))


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    pods = Pods(tmp_path_factory.mktemp("pods"))
    if not can_have_own_names(pods.folder):
        pytest.skip("nobody but root has a mount namespace, on Linux")
    pods.start(0, 1, 2)
    try:
        eventually(pods.are_in_step)
        yield pods
    finally:
        print(pods.log())
        pods.fail(0, 1, 2)


@pytest.fixture
def jobs(start: Start, pods: Pods) -> Function:
    """The function, with the settings of the component."""
    granian = ["sh", "-c", f'exec {sys.executable} -m granian --no-ws --port "$PORT" knative_jobs.server.app:app']
    command = ["-c", "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])", *within(pods.hosts), *granian]
    user = {"REDIS_USERNAME": "submitter", "REDIS_PASSWORD": "password-of-submitter"}
    return start("jobs", command=command, **SETTINGS, **user).ready()


def test_when_the_machine_of_the_primary_fails_another_serves_and_all_that_was_acknowledged_is_there(
    pods: Pods, jobs: Function
) -> None:
    acknowledged = [submit(jobs) for _ in range(20)]
    failed = pods.primary()
    assert failed is not None
    pods.fail(failed)
    eventually(lambda: jobs.request("POST", "/jobs", body=JOB).status == 202)
    acknowledged.append(submit(jobs))
    pods.start(failed)
    eventually(pods.are_in_step)
    assert pods.primary() != failed, "it follows the one that was promoted"
    for n in range(3):
        for job_id in acknowledged:
            assert pods.server(n).hget(f"job.{job_id}", "status") == "submitted"
    submit(jobs)


def test_when_all_have_failed_at_once_they_come_back_with_all_that_was_acknowledged(pods: Pods, jobs: Function) -> None:
    """Each with another address, and with the primary that they had."""
    acknowledged = [submit(jobs) for _ in range(20)]
    before = pods.primary()
    pods.fail(0, 1, 2)
    assert jobs.request("POST", "/jobs", body=JOB).status == 503
    pods.start(0, 1, 2)
    eventually(pods.are_in_step)
    assert pods.primary() == before
    for job_id in acknowledged:
        assert pods.server(1).hget(f"job.{job_id}", "status") == "submitted"
    eventually(lambda: jobs.request("POST", "/jobs", body=JOB).status == 202)


def test_a_backup_is_restored_when_all_pods_have_it_and_start_at_once(pods: Pods, jobs: Function) -> None:
    submit(jobs)
    eventually(pods.are_in_step)
    primary = pods.primary()
    assert primary is not None
    at_backup = set(pods.server(primary).zrange("jobs.submitted", 0, -1))
    backup(pods.data(primary), pods.folder / "jobs.tar")
    for n in range(3):
        shutil.copy(pods.folder / "jobs.tar", pods.data(n) / "restore.tar")
    submit(jobs)
    pods.fail(0, 1, 2)
    pods.start(0, 1, 2)
    eventually(pods.are_in_step)
    for n in range(3):
        assert set(pods.server(n).zrange("jobs.submitted", 0, -1)) == at_backup
    eventually(lambda: jobs.request("POST", "/jobs", body=JOB).status == 202)


def test_without_a_password_a_sentinel_tells_which_is_the_primary_and_nothing_else(pods: Pods) -> None:
    sentinel = pods.sentinel(0)
    assert sentinel.sentinel_masters()["jobs"]["is_master"]
    for command in (
        "SENTINEL FAILOVER jobs",
        "SENTINEL REMOVE jobs",
        "SENTINEL RESET *",
        "SENTINEL SET jobs quorum 1",
        "SHUTDOWN",
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            sentinel.execute_command(*command.split())
    with pytest.raises(redis.exceptions.AuthenticationError):
        pods.sentinel(0, username="sentinel", password="another").ping()


def test_no_password_can_be_read_by_others(pods: Pods) -> None:
    with_password = [path for path in pods.folder.glob("pod-*/**/*.conf") if "password-of" in path.read_text()]
    assert len(with_password) == 6
    assert {path.stat().st_mode & 0o077 for path in with_password} == {0}
