"""REDIS_KEY_PREFIX: two installations on one Redis; a Redis Cluster of real nodes, whose slots fail over and move."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
import trustme
from redis.crc import key_slot

from local import redis_server, redis_users
from tests.conftest import FRAMEWORK, NEVER, REDIS_USER, ROOT, Function, Redis, Start, events, eventually, free_port
from tests.failover import JOB, soon, submit
from tests.tls_front import tls_front

PREFIX = "{jobs}."
USERS = ("reader", "submitter", "api", "worker", "sweeper", "replica")
SERVERS = pytest.mark.parametrize("how", [{}, {"command": [FRAMEWORK], "PYTHONPATH": ""}], ids=["loop", "threads"])


def rules_of_docs(prefix: str) -> dict[str, str]:
    """The rules of the users, as the command in docs/operate.md makes them for this prefix."""
    [command] = re.findall(r"^    (sed .*users\.acl)$", (ROOT / "docs" / "operate.md").read_text(), re.MULTILINE)
    assert PREFIX in command
    command = command.replace(PREFIX, prefix)
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = (line.split(maxsplit=2) for line in done.stdout.splitlines() if line.startswith("user "))
    return {name: allowed for _, name, allowed in lines}


class Node:
    """One server of a cluster."""

    def __init__(self, folder: Path, acl: str) -> None:
        self.port, bus = free_port(), free_port()
        folder.mkdir()
        (folder / "users.acl").write_text(acl)
        options = {
            "cluster-enabled": "yes",
            "cluster-port": bus,
            "cluster-node-timeout": 2000,
            "cluster-replica-validity-factor": 0,
            "masteruser": "replica",
            "masterauth": "password of replica",
            "repl-diskless-sync-delay": 0,
        }
        command = redis_server.command(self.port, folder, {}, folder / "users.acl")
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        self.process = subprocess.Popen([*command, *words], stdout=subprocess.DEVNULL)
        self.client = redis.Redis(
            port=self.port, username="admin", password="password of admin", decode_responses=True, retry=NEVER
        )
        eventually(self._answers)
        self.id = self.client.execute_command("CLUSTER MYID")
        self.address = f"127.0.0.1:{self.port}"
        self.bus = bus

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.client.close()

    def info(self) -> dict[str, str]:
        return dict(self.client.execute_command("CLUSTER INFO"))

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False


class Cluster:
    """Three nodes with a third of the slots each, and a replica of the one that has ours."""

    def __init__(self, folder: Path) -> None:
        passwords = {name: f"password of {name}" for name in (*USERS, "admin")}
        acl = redis_users.acl(rules_of_docs(PREFIX) | {"admin": redis_users.ADMIN}, passwords)
        self.nodes = [Node(folder / f"node-{n}", acl) for n in range(4)]
        self.slot = key_slot(PREFIX.encode())
        bounds = (0, 5461, 10922, 16384)
        for node, first, after in zip(self.nodes, bounds, bounds[1:], strict=False):
            node.client.execute_command("CLUSTER ADDSLOTSRANGE", first, after - 1)
        for node in self.nodes[1:]:
            node.client.execute_command("CLUSTER MEET", "127.0.0.1", self.nodes[0].port, self.nodes[0].bus)
        self.owner = next(node for node, after in zip(self.nodes, bounds[1:], strict=False) if self.slot < after)
        self.others = [node for node in self.nodes[:3] if node is not self.owner]
        self.replica = self.nodes[3]
        eventually(lambda: all(self._agrees(node) for node in self.nodes))
        self.replica.client.execute_command("CLUSTER REPLICATE", self.owner.id)
        eventually(lambda: self.replica.client.info("replication").get("master_link_status") == "up")

    def settings(self, target: str, *named: Node) -> dict[str, str]:
        """How a function reaches it: as the user of its kind, by nodes that do not have our slot."""
        user = REDIS_USER[target]
        hosts = ",".join(node.address for node in named or self.others)
        return {
            "REDIS_URL": f"redis+cluster://{hosts}",
            "REDIS_KEY_PREFIX": PREFIX,
            "REDIS_USERNAME": user,
            "REDIS_PASSWORD": f"password of {user}",
        }

    def record(self, job_id: str, node: Node | None = None) -> dict[str, str]:
        return (node or self.owner).client.hgetall(f"{PREFIX}job.{job_id}")

    def move_slot(self, to: Node) -> "Iterator[None]":
        """Move our slot to another node, as redis-cli does; the keys go while the caller has its turn."""
        to.client.execute_command("CLUSTER SETSLOT", self.slot, "IMPORTING", self.owner.id)
        self.owner.client.execute_command("CLUSTER SETSLOT", self.slot, "MIGRATING", to.id)
        yield
        auth = ("AUTH2", "admin", "password of admin")
        while keys := self.owner.client.execute_command("CLUSTER GETKEYSINSLOT", self.slot, 100):
            self.owner.client.execute_command("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, *auth, "KEYS", *keys)
        for node in (to, self.owner, *self.nodes[:3]):
            node.client.execute_command("CLUSTER SETSLOT", self.slot, "NODE", to.id)
        self.owner = to

    def _agrees(self, node: Node) -> bool:
        info = node.info()
        return (info["cluster_state"], info["cluster_known_nodes"], info["cluster_size"]) == ("ok", "4", "3")

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.stop()


@pytest.fixture
def function(start: Start, cluster: Cluster) -> Start:
    """Start a function on the cluster."""
    return lambda target, **given: start(target, **{**cluster.settings(target), **given}).ready()


class TestARedisCluster:
    @SERVERS
    def test_a_job_goes_its_way_and_all_keys_are_on_one_node(
        self, function: Start, cluster: Cluster, how: dict[str, str]
    ) -> None:
        jobs = function("jobs", **how)
        worker = function("worker", JOB_SECONDS="1")
        job_id = str(jobs.request("POST", "/", body=JOB).json()["id"])
        listed = function("incomplete_jobs", **how).request("GET").json()
        assert [job["id"] for job in listed] == [job_id]
        stream = events(function("job_events"), job_id)
        assert next(stream)[1]["status"] == "submitted"
        soon(lambda: worker.deliver(job_id))
        assert [record for _, record in stream][-1]["status"] == "complete"
        answer = function("jobs_status", **how).request("GET", f"/?job_id={job_id}&wait=60").json()
        assert answer["status"] == cluster.record(job_id)["status"] == "complete"
        assert function("sweeper", SWEEP_SECONDS="0", **how).request("POST").status == 204
        metrics = function("metrics", **how).request("GET").data.decode()
        assert re.search(r"^knative_jobs_completed_total\S* 1\b", metrics, re.MULTILINE)
        for node in cluster.others:
            assert node.client.dbsize() == 0
        assert all(key.startswith(PREFIX) for key in cluster.owner.client.scan_iter())

    def test_a_client_that_waits_on_one_function_hears_of_what_another_did(
        self, function: Start, cluster: Cluster
    ) -> None:
        job_id = submit(function("jobs"))
        status, cancel = function("jobs_status"), function("cancel_job")
        with ThreadPoolExecutor() as clients:
            ended = clients.submit(status.request, "GET", f"/jobs_status?job_id={job_id}&wait=60")
            eventually(lambda: cluster.owner.client.pubsub_numsub(f"{PREFIX}job.{job_id}")[0][1])
            began_at = time.monotonic()
            assert cancel.request("POST", f"/cancel_job?job_id={job_id}").status == 200
            assert ended.result().json()["status"] == "cancelled"
            assert time.monotonic() - began_at < 30

    def test_a_named_node_that_is_gone_is_passed_over(self, start: Start, cluster: Cluster) -> None:
        gone, left = cluster.others
        settings = cluster.settings("jobs", gone, left)
        gone.process.kill()
        jobs = start("jobs", **settings).ready()
        eventually(lambda: jobs.request("POST", "/jobs", body=JOB).status == 202)

    def test_over_tls(self, start: Start, cluster: Cluster, tmp_path: Path) -> None:
        authority, trusted = trustme.CA(), tmp_path / "authority.pem"
        authority.cert_pem.write_to_path(str(trusted))
        with tls_front(authority, cluster.owner.port) as port:
            given = cluster.settings("jobs") | {
                "REDIS_URL": f"rediss+cluster://127.0.0.1:{port}?ssl_ca_certs={trusted}"
            }
            job_id = submit(start("jobs", **given).ready())
            own = cluster.settings("worker") | {"REDIS_URL": given["REDIS_URL"], "JOB_SECONDS": "0"}
            assert start("worker", **own).ready().deliver(job_id) == 204
            assert cluster.record(job_id)["status"] == "complete"
            unknown = given | {"REDIS_URL": given["REDIS_URL"].partition("?")[0]}
            assert start("jobs", **unknown).ready().request("POST", "/jobs", body=JOB).status == 503

    @pytest.mark.parametrize("fault", ["killed", "paused"])
    def test_when_the_node_of_our_slot_fails_everything_goes_on_with_its_replica(
        self, function: Start, cluster: Cluster, fault: str
    ) -> None:
        names = ("jobs", "worker", "jobs_status", "job_events")
        jobs, worker, status, following = (function(name, JOB_SECONDS="8") for name in names)
        job_id = submit(jobs)
        soon(lambda: worker.deliver(job_id))
        stream = events(following, job_id)
        eventually(lambda: next(stream)[1]["status"] == "in progress")
        eventually(lambda: cluster.replica.client.info("replication")["slave_repl_offset"] > 0)
        eventually(lambda: cluster.owner.client.wait(1, 1000) == 1)
        with ThreadPoolExecutor() as clients:
            ended = clients.submit(status.request, "GET", f"/jobs_status?job_id={job_id}&wait=60")
            channel = f"{PREFIX}job.{job_id}"
            eventually(lambda: cluster.owner.client.pubsub_numsub(channel)[0][1] == 2)
            cluster.owner.process.send_signal(signal.SIGKILL if fault == "killed" else signal.SIGSTOP)
            eventually(lambda: jobs.request("POST", "/jobs", body=JOB).status == 202)
            assert cluster.replica.client.role()[0] == "master"
            cluster.owner.process.send_signal(signal.SIGCONT)
            answer = ended.result()
        assert answer.status == 200, answer.data
        record = answer.json()
        assert (record["status"], record["attempt"]) == ("complete", 1)
        assert [record for _, record in stream][-1] == record
        assert cluster.record(job_id, cluster.replica)["status"] == "complete"

    def test_while_the_slot_moves_nothing_is_changed_by_halves_and_then_all_goes_on(
        self, function: Start, cluster: Cluster
    ) -> None:
        jobs, status = function("jobs"), function("jobs_status")
        worker = function("worker", JOB_SECONDS="3", JOB_LEASE_SECONDS="2")
        job_id, waiting = submit(jobs), submit(jobs)
        event = threading.Thread(target=worker.deliver, args=[job_id])
        event.start()
        eventually(lambda: cluster.record(job_id).get("progress"))
        before, keys = cluster.owner, set(cluster.owner.client.scan_iter())
        moving = cluster.move_slot(cluster.others[0])
        next(moving)
        assert jobs.request("POST", "/jobs", body=JOB).status == 503
        assert status.request("GET", f"/jobs_status?job_id={waiting}").status == 503
        assert set(before.client.scan_iter()) <= keys, "no script has run"
        for _ in moving:
            pass
        assert before.client.dbsize() == 0
        third = submit(jobs)
        event.join()
        assert cluster.record(job_id)["status"] == "complete"
        for job in (waiting, third):
            eventually(lambda job=job: worker.deliver(job) == 204 and cluster.record(job)["status"] == "complete")


class TestTwoInstallations:
    @pytest.mark.parametrize("prefix", ["", PREFIX, "first:"])
    def test_the_users_of_the_base_have_the_rights_for_their_own_keys(self, tmp_path: Path, prefix: str) -> None:
        """start.sh writes them, and then starts what is called redis-server."""
        (tmp_path / "redis-server").symlink_to("/bin/true")
        file = tmp_path / "users.acl"
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ACL_FILE": str(file), "PASSWORDS": str(tmp_path)}
        command = ["sh", ROOT / "knative" / "base" / "redis" / "start.sh"]
        subprocess.run(command, env=env | {"REDIS_KEY_PREFIX": prefix}, check=True)
        written = (line.split(maxsplit=2) for line in file.read_text().splitlines())
        assert {name: rules for _, name, rules in written} == (rules_of_docs(prefix) if prefix else redis_users.rules())

    def test_on_one_redis_they_do_not_see_each_other(self, start: Start, store: Redis) -> None:
        for user in ("submitter", "reader", "worker"):
            for prefix in ("first:", "second:"):
                rules = rules_of_docs(prefix)[user].split()
                store.client.execute_command("ACL SETUSER", f"{prefix}{user}", *rules, ">secret")

        def function(prefix: str, target: str, **given: str) -> Function:
            user = {"REDIS_USERNAME": f"{prefix}{REDIS_USER[target]}", "REDIS_PASSWORD": "secret"}
            return start(target, REDIS_KEY_PREFIX=prefix, **user, **given).ready()

        first, second = submit(function("first:", "jobs")), submit(function("second:", "jobs"))
        for prefix, own, other in (("first:", first, second), ("second:", second, first)):
            listed = function(prefix, "incomplete_jobs").request("GET").json()
            assert [job["id"] for job in listed] == [own]
            status = function(prefix, "jobs_status")
            assert status.request("GET", f"/?job_id={own}").status == 200
            assert status.request("GET", f"/?job_id={other}").status == 404
            worker = function(prefix, "worker", JOB_SECONDS="0")
            assert worker.deliver(other) == 204
            assert store.client.hget(f"{prefix}job.{own}", "status") in ("submitted", "complete")
        assert {key.partition(":")[0] for key in store.client.scan_iter()} == {"first", "second"}
        intruder = redis.Redis(port=store.port, username="first:submitter", password="secret", retry=NEVER)
        with intruder, pytest.raises(redis.exceptions.NoPermissionError):
            intruder.hgetall(f"second:job.{second}")
        for prefix in ("first:", "second:"):
            for user in ("submitter", "reader", "worker"):
                store.client.acl_deluser(f"{prefix}{user}")
