"""A failover of Redis: a replica is promoted, and the address of Redis leads to it from then on."""

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import trustme

from chaos.replicated import NAME, Replicated
from harness.proxy import Proxy
from local import redis_server, redis_users
from tests.conftest import FRAMEWORK, Function, Receiver, Redis, Start, events, eventually, free_port
from tests.failover import JOB, Failover, soon, submit
from tests.tls_front import tls_front


@pytest.fixture
def failover(tmp_path: Path) -> Iterator[Failover]:
    failover = Failover(tmp_path / "redis")
    yield failover
    failover.stop()


@pytest.fixture
def jobs(start: Start, failover: Failover) -> Function:
    return start("jobs", REDIS_URL=failover.url).ready()


@pytest.mark.parametrize("isolated", [False, True], ids=["followed", "isolated"])
class TestAnOldPrimaryThatIsStillConnected:
    @pytest.mark.parametrize("server", ["on the event loop", "in threads"])
    def test_the_next_submission_goes_to_the_new_one(
        self, start: Start, failover: Failover, isolated: bool, server: str
    ) -> None:
        threads = {"command": [FRAMEWORK], "PYTHONPATH": ""} if server == "in threads" else {}
        jobs = start("jobs", REDIS_URL=failover.url, **threads).ready()
        assert jobs.request("POST", "/", body=JOB).status == 202
        failover.happen(isolated)
        for _ in range(5):  # by any of the threads
            answer = jobs.request("POST", "/", body=JOB)
            assert answer.status == 202, answer.data
            assert failover.new.record(answer.json()["id"])["status"] == "submitted"

    def test_a_worker_goes_on_with_the_job_that_it_has(
        self, start: Start, failover: Failover, isolated: bool, jobs: Function
    ) -> None:
        worker = start("worker", REDIS_URL=failover.url, JOB_SECONDS="4", JOB_LEASE_SECONDS="2").ready()
        job_id = submit(jobs)
        event = threading.Thread(target=worker.deliver, args=[job_id])
        event.start()
        eventually(lambda: failover.old.record(job_id).get("progress"))
        failover.happen(isolated)
        before = float(failover.new.record(job_id)["progress"])
        eventually(lambda: float(failover.new.record(job_id)["progress"]) > before)
        lease = failover.new.client.zscore("jobs.leases", job_id)
        eventually(lambda: failover.new.client.zscore("jobs.leases", job_id) != lease)
        event.join()
        record = failover.new.record(job_id)
        assert (record["status"], record["attempt"]) == ("complete", "1")

    def test_a_worker_claims_there_what_is_due(
        self, start: Start, failover: Failover, isolated: bool, jobs: Function
    ) -> None:
        worker = start("worker", REDIS_URL=failover.url, JOB_SECONDS="0").ready()
        assert worker.deliver(submit(jobs)) == 204
        failover.happen(isolated)
        job_id = submit(jobs)
        # For a second it may still read from the old one, which knows of no such job.
        eventually(lambda: worker.deliver(job_id) == 204 and failover.new.record(job_id)["status"] == "complete")

    def test_a_client_that_waits_hears_of_the_end(
        self, start: Start, failover: Failover, isolated: bool, jobs: Function
    ) -> None:
        status, cancel = (start(name, REDIS_URL=failover.url).ready() for name in ("jobs_status", "cancel_job"))
        job_id = submit(jobs)

        def move_and_cancel() -> None:
            failover.happen(isolated)
            cancel.request("POST", f"/cancel_job?job_id={job_id}")

        soon(move_and_cancel)
        began_at = time.monotonic()
        answer = status.request("GET", f"/jobs_status?job_id={job_id}&wait=60")
        assert (answer.status, answer.json()["status"]) == (200, "cancelled")
        assert time.monotonic() - began_at < 30

    def test_a_stream_of_changes_goes_on(
        self, start: Start, failover: Failover, isolated: bool, jobs: Function
    ) -> None:
        worker = start("worker", REDIS_URL=failover.url, JOB_SECONDS="4").ready()
        stream = events(start("job_events", REDIS_URL=failover.url).ready(), job_id := submit(jobs))
        assert next(stream)[1]["status"] == "submitted"
        soon(lambda: worker.deliver(job_id))
        assert next(stream)[1]["status"] == "in progress"
        failover.happen(isolated)
        seen = [record for _, record in stream]
        assert len(seen) > 2, "its progress too"
        assert seen[-1] == json.loads(json.dumps(seen[-1])) | {"status": "complete", "attempt": 1}

    def test_what_only_reads_comes_to_the_new_one_too(
        self, start: Start, failover: Failover, isolated: bool, jobs: Function
    ) -> None:
        listing = start("incomplete_jobs", REDIS_URL=failover.url).ready()
        first = submit(jobs)
        assert [job["id"] for job in listing.request("GET").json()] == [first]
        failover.happen(isolated)
        second = submit(jobs)
        eventually(lambda: [job["id"] for job in listing.request("GET").json()] == [first, second])

    def test_the_sweeper_sees_what_is_new(
        self, start: Start, failover: Failover, isolated: bool, jobs: Function
    ) -> None:
        announced: list[str] = []
        broker = Receiver(lambda _, headers, body: announced.append(headers["ce-subject"]) or 202)
        submit(jobs)  # so that the sweep goes on
        sweeper = start("sweeper", REDIS_URL=failover.url, SWEEP_SECONDS="60", K_SINK=broker.url).ready()
        sweep = threading.Thread(target=lambda: sweeper.request("POST"))
        sweep.start()
        eventually(lambda: announced)
        failover.happen(isolated)
        job_id = submit(jobs)
        eventually(lambda: job_id in announced)
        failover.new.client.flushall()  # nothing is left to do
        sweep.join()
        broker.stop()


class TestALateAnswer:
    def test_it_costs_the_request_that_waited_for_it_and_no_other(self, start: Start, store: Redis) -> None:
        """Those that have waited for less time are repeated, as often as if their connection had been good."""
        with closing(Proxy()) as way:
            way.to_port = store.port
            jobs = start("jobs", REDIS_URL=f"redis://127.0.0.1:{way.port}/0").ready()
            submit(jobs)
            with ThreadPoolExecutor(21) as clients:

                def post(_: int) -> int:
                    return jobs.request("POST", "/jobs", body=JOB, timeout=30).status

                way.silence()
                way.answers_to_lose = 1  # of the next connection: so the first request has had both of its tries
                first = clients.submit(post, 0)
                eventually(lambda: way.dropped)
                others = [clients.submit(post, n) for n in range(20)]
                assert first.result() == 503
                assert [other.result() for other in others] == 20 * [202]
        assert store.client.zcard("jobs.submitted") == 21


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory, shared_redis: Redis) -> Iterator[Replicated]:
    sentinels = Replicated(tmp_path_factory.mktemp("sentinels"))
    sentinels.start(redis_users.acl(redis_users.rules(), shared_redis.passwords))
    yield sentinels
    sentinels.stop()


class TestSentinels:
    """Real ones, that find out themselves that the primary is gone, and promote a replica."""

    @pytest.mark.parametrize("fault", ["kill_primary", "pause_primary"])
    def test_when_the_primary_fails_everything_goes_on_with_the_next(
        self, start: Start, sentinels: Replicated, fault: str
    ) -> None:
        names = ("jobs", "worker", "jobs_status", "job_events")
        jobs, worker, status, following = (start(name, REDIS_URL=sentinels.url, JOB_SECONDS="15") for name in names)
        for function in (jobs, worker, status, following):
            function.ready()
        job_id = submit(jobs)
        soon(lambda: worker.deliver(job_id))
        stream = events(following, job_id)
        eventually(lambda: next(stream)[1]["status"] == "in progress")
        for server in sentinels.servers:  # else the claim may be lost, and another worker does the job
            with sentinels.client(server) as client:
                eventually(lambda client=client: client.hget(f"job.{job_id}", "status") == "in progress")
        with ThreadPoolExecutor() as clients:
            ended = clients.submit(status.request, "GET", f"/jobs_status?job_id={job_id}&wait=60")
            with sentinels.client() as primary:
                eventually(lambda: primary.pubsub_numsub(f"job.{job_id}")[0][1] == 2)
            failed_over = clients.submit(getattr(sentinels, fault))
            unserved = set()
            while not failed_over.done() or jobs.request("POST", "/jobs", body=JOB, timeout=10).status != 202:
                unserved.add(jobs.request("POST", "/jobs", body=JOB, timeout=10).status)
            assert failed_over.result()
            assert unserved <= {202, 503}
            answer = ended.result()
        assert answer.status == 200, answer.data
        record = answer.json()
        assert (record["status"], record["attempt"]) == ("complete", 1)
        assert [record for _, record in stream][-1] == record
        with sentinels.client() as primary:
            assert primary.hget(f"job.{job_id}", "status") == "complete"

    def test_a_sentinel_that_is_gone_is_passed_over(self, start: Start, sentinels: Replicated) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            gone = f"127.0.0.1:{silent.getsockname()[1]},127.0.0.1:9,"
            url = sentinels.url.replace("//", f"//{gone}")
            submit(start("jobs", REDIS_URL=url).ready())
            with sentinels.client() as primary:
                assert start("worker", REDIS_URL=url, JOB_SECONDS="0").ready().deliver(
                    primary.zrange("jobs.due", 0, 0)[0]
                ) in (204, 503)

    def test_a_primary_that_they_do_not_know_is_none(self, start: Start, sentinels: Replicated) -> None:
        jobs = start("jobs", REDIS_URL=sentinels.url.replace(NAME, "another")).ready()
        assert jobs.request("POST", "/jobs", body=JOB).status == 503
        assert "No master found" in jobs.log()

    def test_over_tls_and_with_passwords_of_their_own(self, start: Start, tmp_path: Path) -> None:
        authority, trusted = trustme.CA(), tmp_path / "authority.pem"
        authority.cert_pem.write_to_path(str(trusted))
        port, sentinel_port = free_port(), free_port()
        plain = f"bind 127.0.0.1\ndir {tmp_path}"
        redis_file, sentinel_file = tmp_path / "redis.conf", tmp_path / "sentinel.conf"
        redis_file.write_text(f'{plain}\nport {port}\nsave ""\nrequirepass of-redis')
        with (
            tls_front(authority, port) as tls_port,
            tls_front(authority, sentinel_port) as sentinel_tls_port,
            ExitStack() as servers,
        ):
            watched = f"sentinel monitor {NAME} 127.0.0.1 {tls_port} 1\nsentinel auth-pass {NAME} of-redis"
            sentinel_file.write_text(f"{plain}\nport {sentinel_port}\n{watched}\nrequirepass of-the-sentinels")
            for options in ([redis_file], [sentinel_file, "--sentinel"]):
                server = subprocess.Popen([redis_server.binary(), *options], stdout=subprocess.DEVNULL)
                servers.enter_context(server)
                servers.callback(server.kill)
            given = {
                "REDIS_URL": f"rediss+sentinel://127.0.0.1:{sentinel_tls_port}/{NAME}/0?ssl_ca_certs={trusted}",
                "REDIS_USERNAME": "",
                "REDIS_PASSWORD": "of-redis",
                "REDIS_SENTINEL_PASSWORD": "of-the-sentinels",
            }
            jobs = start("jobs", **given).ready()
            eventually(lambda: jobs.request("POST", "/jobs", body=JOB).status == 202)
            worker = start("worker", **given, JOB_SECONDS="0").ready()
            assert worker.deliver(submit(jobs)) == 204
            for wrong in (
                {"REDIS_SENTINEL_PASSWORD": "another"},
                {"REDIS_PASSWORD": "another"},
                {"REDIS_URL": given["REDIS_URL"].partition("?")[0]},
            ):
                assert start("jobs", **{**given, **wrong}).ready().request("POST", "/jobs", body=JOB).status == 503
