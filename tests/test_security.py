"""What is kept from whom. SECURITY.md has a table of these tests by attack."""

import ast
import hashlib
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import trustme
import urllib3
from redis.exceptions import AuthenticationError, NoPermissionError

from knative_jobs.runtime.logs import Plain
from knative_jobs.store import lua_scripts
from knative_jobs.store.lua_scripts import KEY, SHARED
from local import manifests, redis_server, redis_users
from tests.conftest import (
    NEVER,
    PATIENCE_S,
    REDIS_USER,
    ROOT,
    UNKNOWN_ID,
    Broker,
    Function,
    Redis,
    Start,
    eventually,
    free_port,
    http,
    problem,
)
from tests.local.conftest import Platform
from tests.local.conftest import platform as platform
from tests.tls_front import tls_front
from tests.tokens import OTHER, READER, TOKENS, WRITER, bearer, entry

JOB = '{"start": "1", "end": "2"}'
PUBLIC = sorted(service.target for service in manifests.services() if service.public)
KINDS = ("reader", "submitter", "worker", "sweeper")
FOLLOWING = ("reader", "submitter")
"""Those whose functions wait for the end of a job."""
PACKAGE = ROOT / "functions" / "knative_jobs"
LUA = PACKAGE / "store" / "lua"
"""Lua that is no script of its own."""


class TestCallers:
    @pytest.fixture
    def jobs(self, endpoint: Start) -> Function:
        return endpoint("jobs", API_TOKENS=TOKENS)

    def post(self, jobs: Function, token: str, **headers: str) -> urllib3.BaseHTTPResponse:
        return jobs.request("POST", "/jobs", body=JOB, headers=bearer(token) | headers)

    @pytest.mark.parametrize("target", PUBLIC)
    def test_no_public_endpoint_answers_without_a_token(self, endpoint: Start, target: str) -> None:
        function = endpoint(target, API_TOKENS=TOKENS)
        path = "/dashboard/jobs" if target == "dashboard" else "/"  # where that has its page
        for method in ("GET", "POST", "HEAD"):
            for headers in (
                {},
                {"Authorization": "Basic cml0YTp4"},
                {"Authorization": "Bearer "},
                {"Authorization": ""},
            ):
                answer = function.request(method, path, headers=headers)
                assert answer.status == 401
                assert answer.headers["WWW-Authenticate"] == 'Bearer realm="knative-jobs"'
        assert "Authorization: Bearer TOKEN" in problem(function.request("POST", path), 401)
        assert function.request("GET", "/health/readiness").status == 200, "Kubernetes has no token"

    def test_a_token_that_nobody_has_is_refused(self, jobs: Function, store: Redis) -> None:
        hash_itself = hashlib.sha256(WRITER.encode()).hexdigest()
        for token in ("nobody's", WRITER[:-1], WRITER + "x", WRITER.upper(), hash_itself, "walt", "x" * 100_000):
            answer = self.post(jobs, token)
            problem(answer, 401)
            assert answer.headers["WWW-Authenticate"] == 'Bearer realm="knative-jobs", error="invalid_token"'
        assert store.client.dbsize() == 0

    def test_who_may_read_may_not_write(self, endpoint: Start, jobs: Function, store: Redis) -> None:
        for target in ("jobs", "cancel_job", "retry_job"):
            function = jobs if target == "jobs" else endpoint(target, API_TOKENS=TOKENS)
            answer = function.request("POST", f"/{target}?job_id={UNKNOWN_ID}", body=JOB, headers=bearer(READER))
            assert "rita" in problem(answer, 403)
            assert 'error="insufficient_scope", scope="write"' in answer.headers["WWW-Authenticate"]
        assert store.client.dbsize() == 0
        listing = endpoint("incomplete_jobs", API_TOKENS=TOKENS)
        assert [listing.request("GET", headers=bearer(token)).status for token in (READER, WRITER)] == [200, 200]

    def test_the_record_names_the_token_and_never_shows_it(self, endpoint: Start, jobs: Function, store: Redis) -> None:
        answer = self.post(jobs, WRITER)
        assert answer.status == 202
        assert answer.json().keys() == {"id", "start", "end", "status"}
        record = store.record(answer.json()["id"])
        assert record["submitted-by"] == "walt"
        status = endpoint("jobs_status", API_TOKENS=TOKENS)
        shown = status.request("GET", f"/?job_id={record['id']}", headers={"authorization": f"bearer {READER}"}).json()
        assert shown["submitted-by"] == "walt"
        everything = json.dumps([record, shown]) + jobs.log() + status.log()
        assert not any(secret in everything for secret in (WRITER, READER, TOKENS.split(":")[2][:64]))

    def test_nobody_can_say_who_they_are(self, endpoint: Start, store: Redis) -> None:
        headers = {"Remote-User": "walt", "Remote_User": "walt"}
        answer = endpoint("jobs").request("POST", "/jobs", body=JOB, headers=headers)
        assert "submitted-by" not in store.record(answer.json()["id"])

    def test_an_idempotency_key_is_its_callers_own(self, jobs: Function, store: Redis) -> None:
        first, again, others = (self.post(jobs, t, **{"Idempotency-Key": "1"}) for t in (WRITER, WRITER, OTHER))
        assert first.json() == again.json() != others.json()
        assert others.status == 202
        assert "Idempotency-Replayed" not in others.headers

    def test_what_the_broker_calls_asks_for_no_token(self, endpoint: Start, store: Redis) -> None:
        for target in ("worker", "dead_letter"):
            assert endpoint(target, API_TOKENS=TOKENS).deliver(UNKNOWN_ID) == 204

    def test_the_work_does_not_see_the_tokens_or_the_password(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from knative_jobs.runtime.settings import work_environment

        monkeypatch.setenv("API_TOKENS", TOKENS)
        monkeypatch.setenv("REDIS_PASSWORD", "secret")
        assert not {"API_TOKENS", "REDIS_PASSWORD"} & work_environment().keys()

    @pytest.mark.parametrize("bad", ["a-token", "walt:write", "walt:admin:" + "0" * 64, "walt:read:" + "Z" * 64, "a b"])
    def test_tokens_that_cannot_be_used_stop_the_start_and_are_not_shown(self, start: Start, bad: str) -> None:
        jobs = start("jobs", API_TOKENS=f"{TOKENS} {bad}")
        eventually(lambda: jobs.process.poll() is not None)
        assert jobs.process.returncode != 0
        assert "API_TOKENS: entry 4 of" in jobs.log()
        assert bad not in jobs.log()

    def test_a_token_is_changed_without_a_refusal(self, start: Start, store: Redis) -> None:
        """As SECURITY.md says: both are known, then the callers change, then the old one goes."""
        old, new = entry("walt", "write", WRITER), entry("walt", "write", OTHER)
        accepted = [
            [self.post(start("jobs", API_TOKENS=tokens).ready(), token).status for token in (WRITER, OTHER)]
            for tokens in (old, f"{old} {new}", new)
        ]
        assert accepted == [[202, 401], [202, 202], [401, 202]]


class TestRedisUsers:
    """The functions of all other tests, and of local mode, are these users: what they need, they have."""

    def test_the_reader_reads_and_cannot_write(self, endpoint: Start, store: Redis) -> None:
        job_id = endpoint("jobs").request("POST", "/jobs", body=JOB).json()["id"]
        before, keys = store.record(job_id), store.client.dbsize()
        assert endpoint("jobs_status").request("GET", f"/?job_id={job_id}").status == 200
        with store.connect("reader") as reader:
            assert reader.hgetall(f"job.{job_id}") == before
            for command in (
                ("HSET", f"job.{job_id}", "status", "complete"),
                ("DEL", f"job.{job_id}"),
                ("ZADD", "jobs.due", 1, job_id),
                ("SET", "job.x", 1),
                ("HGETALL", "other"),
                ("EVAL", "return 1", 0),
            ):
                with pytest.raises(NoPermissionError):
                    reader.execute_command(*command)
            refused = {s.stem for s in LUA.glob("*.lua") if s.stem not in SHARED and self.refused(reader, s, job_id)}
        assert refused >= {"submit", "claim", "cancel", "postpone"}, "what would change this job"
        assert not refused & {"record", "page", "log", "overview", "metrics"}
        assert store.record(job_id) == before
        assert store.client.dbsize() == keys

    def refused(self, reader: redis.Redis, script: Path, job_id: str) -> bool:
        """Whether Redis refuses a call within the script."""
        sha = reader.script_load(lua_scripts.script(script.stem).text)
        given = {
            "submit": [9, "", "", 9, "", "", UNKNOWN_ID, "default", 1, 2, "", "", ""],
            "page": ["", "", "", "", "", "", "oldest", "", 9],
        }
        given |= {"claim": [job_id, 30, "", 0, "default"], "overview": [60, ""]}
        try:
            reader.evalsha(sha, 1, KEY, *given.get(script.stem, [job_id, 1, 30, "", 1, 1, 1]))
        except redis.ResponseError as error:
            return bool(re.search(r"can't run this command|ACL failure|can't access", str(error)))
        return False

    @pytest.mark.parametrize("user", KINDS)
    def test_a_user_has_the_commands_and_keys_of_its_scripts_and_no_other(self, user: str) -> None:
        rules = redis_users.rules()[user].split()
        texts = [
            lua_scripts.script(name).text
            for target, own in REDIS_USER.items()
            if own == user
            for name in scripts_of(target)
        ]
        waits = ["+@blocking", "-@read", "-@write"] if user in ("submitter", "worker") else []
        if waits:
            texts.append(lua_scripts.script("touch").text)
        commands = {c.lower() for text in texts for c in re.findall(r"\b(?:call|pcall|read|write)\('(\w+)'", text)}
        commands |= {"evalsha", "role", "script|load"} | ({"wait"} if waits else set())
        commands |= {"subscribe", "unsubscribe"} if user in FOLLOWING else set()
        given = [rule for rule in rules if rule[0] in "+-"]
        assert given[: len(waits)] == waits, "what is taken away comes before what is given"
        assert {*given[len(waits) :]} == {f"+{name}" for name in commands}
        keys = {"job.*", "jobs.*"} | {"idempotency.*" for text in texts if "idempotency." in text}
        kind = "%R~" if user == "reader" else "~"
        assert {rule for rule in rules if "~" in rule} == {f"~{KEY}"} | {kind + key for key in keys}
        assert {rule for rule in rules if "&" in rule} == {"&job.*"}
        assert rules[0] == "on"
        assert "nopass" not in rules

    def test_who_serves_all_public_functions_may_do_what_each_of_them_may(self) -> None:
        users = redis_users.rules()
        reader, submitter, api = (set(users[name].split()) for name in ("reader", "submitter", "api"))
        assert api == {rule.replace("%R~", "~") for rule in reader} | submitter

    @pytest.mark.parametrize("user", ["default", "probe", "api", *KINDS])
    def test_flushall_config_and_keys_are_for_nobody(self, store: Redis, user: str) -> None:
        commands = ("FLUSHALL", "FLUSHDB", "CONFIG GET *", "KEYS *", "SHUTDOWN", "ACL LIST", "MONITOR")
        with store.connect(user) as client:
            for command in commands:
                with pytest.raises((NoPermissionError, AuthenticationError)):
                    client.execute_command(*command.split())

    def test_nobody_comes_in_as_default_or_without_a_password(self, store: Redis) -> None:
        for user, password in [(None, None), ("default", ""), ("default", "x"), ("reader", ""), ("worker", "x")]:
            with pytest.raises(AuthenticationError):
                redis.Redis(port=store.port, username=user, password=password, retry=NEVER).hgetall("job.1")
        with redis.Redis(port=store.port, username="probe", password="any", retry=NEVER) as probe:
            assert probe.ping()
            with pytest.raises(NoPermissionError):
                probe.hgetall("job.1")

    def test_each_functions_service_names_the_user_of_its_kind(self) -> None:
        users = {target: user for target, user in REDIS_USER.items() if user != "api"}
        needing = {target for target in users if scripts_of(target)}
        assert {target for target, user in users.items() if user} == needing
        for target, user in users.items():
            writes = scripts_of(target) - {"record", "page", "log", "overview", "metrics"}
            assert (user in ("", "reader")) == (not writes), target

    def test_a_function_with_a_wrong_password_says_503_and_changes_nothing(self, start: Start, store: Redis) -> None:
        problem(start("jobs", REDIS_PASSWORD="wrong").ready().request("POST", "/jobs", body=JOB), 503)
        assert store.client.dbsize() == 0


class TestRedisOfTheCluster:
    """`start.sh`, as the container of Redis runs it."""

    @pytest.fixture
    def passwords(self, tmp_path: Path) -> Path:
        folder = tmp_path / "passwords"
        folder.mkdir()
        return folder

    def write(self, folder: Path, **passwords: str) -> None:
        for file in folder.iterdir():
            file.unlink()
        for name, password in passwords.items():
            (folder / name.replace("_", ".")).write_text(password)

    @pytest.fixture
    def cluster(self, tmp_path: Path, passwords: Path, store: Redis) -> Iterator["ClusterRedis"]:
        server = ClusterRedis(tmp_path, passwords)
        yield server
        server.stop()

    def test_its_users_have_the_passwords_of_the_secret(self, cluster: "ClusterRedis", passwords: Path) -> None:
        self.write(passwords, reader="r 1", worker="w", worker_old="v\n")
        cluster.start()
        assert cluster.accepts("reader", "r 1")
        assert cluster.accepts("worker", "w")
        assert cluster.accepts("worker", "v\n")
        assert not cluster.accepts("worker", "r 1")
        assert not cluster.accepts("sweeper", "")
        assert not cluster.accepts("default", "")
        assert not re.search("r 1|password", cluster.acl_file.read_text())
        assert cluster.acl_file.stat().st_mode & 0o077 == 0

    def test_the_passwords_are_changed_and_no_job_is_lost(
        self, cluster: "ClusterRedis", passwords: Path, start: Start, tmp_path: Path
    ) -> None:
        """As SECURITY.md says, with a job that runs all the time: its worker knows the old password alone."""

        def function(target: str, age: str, **more: str) -> Function:
            user = REDIS_USER[target]
            own = {"REDIS_URL": cluster.url, "REDIS_USERNAME": user, "REDIS_PASSWORD": f"{age} {user}"}
            return start(target, **own, **more).ready()

        old, new = ({kind: f"{age} {kind}" for kind in KINDS} for age in ("old", "new"))
        self.write(passwords, **old)
        cluster.start()
        work = {"JOB_WORK": "sample_work:work", "EFFECTS": str(tmp_path / "effects"), "WORKER_DRAIN_SECONDS": "0"}
        jobs, worker = function("jobs", "old"), function("worker", "old", **work)
        ids = [jobs.request("POST", "/jobs", body=b'{"start": "sleep 4", "end": ""}').json()["id"] for _ in range(2)]
        running = threading.Thread(target=worker.deliver, args=[ids[0]])
        running.start()
        eventually((tmp_path / "effects").exists)

        self.write(passwords, **new, **{f"{kind}_old": password for kind, password in old.items()})
        cluster.restart()
        assert function("jobs_status", "new").request("GET", f"/?job_id={ids[1]}").json()["status"] == "submitted"
        assert jobs.request("POST", "/jobs", body=JOB).status == 202, "the old ones go on"
        running.join()

        self.write(passwords, **new)
        cluster.restart()
        status = function("jobs_status", "new")
        done = status.request("GET", f"/?job_id={ids[0]}").json()
        assert (done["status"], done["attempt"]) == ("complete", 1), "what ran was finished by who had begun it"
        assert function("worker", "new", **work).deliver(ids[1]) == 204
        assert status.request("GET", f"/?job_id={ids[1]}").json()["status"] == "complete"
        problem(jobs.request("POST", "/jobs", body=JOB), 503)


class ClusterRedis(Redis):
    """A Redis that is started by the script of the cluster."""

    def __init__(self, folder: Path, passwords: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        (self.bin / "redis-server").symlink_to(redis_server.binary())
        self.acl_file, self.given = folder / "rendered.acl", passwords
        self.port, self.folder = free_port(), folder
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self, *options: str) -> None:
        more = ["--port", str(self.port), "--dir", str(self.folder), "--appendonly", "yes", "--save", "", *options]
        env = {
            "PATH": f"{self.bin}:{os.environ['PATH']}:{os.defpath}",
            "PASSWORDS": str(self.given),
            "ACL_FILE": str(self.acl_file),
        }
        script = ROOT / "knative" / "base" / "redis" / "start.sh"
        self.process = subprocess.Popen(["sh", script, *more], env=env, stdout=subprocess.DEVNULL)
        eventually(lambda: self.accepts("probe", ""))

    def accepts(self, user: str, password: str) -> bool:
        with redis.Redis(port=self.port, username=user, password=password, retry=NEVER) as client:
            try:
                client.ping()
            except NoPermissionError:
                return True  # it is logged in
            except redis.ConnectionError:
                return False
            return True

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


class TestOneMachine:
    def test_anybody_here_may_look_into_redis_and_change_nothing(self, platform: Platform) -> None:
        job_id = platform.submit()
        port = int(platform.said().split("redis-cli -p ")[1].split()[0])
        with redis.Redis(port=port, decode_responses=True) as client:
            assert client.hgetall(f"job.{job_id}")["id"] == job_id
            assert client.zrange("jobs.submitted", 0, -1) is not None
            for command in (
                "FLUSHALL",
                "CONFIG GET *",
                "KEYS *",
                "SET x 1",
                f"DEL job.{job_id}",
                "ACL LIST",
                "EVAL x 0",
            ):
                with pytest.raises(NoPermissionError):
                    client.execute_command(*command.split())

    def test_no_password_is_printed_or_written_down(self, platform: Platform) -> None:
        file = platform.folder / "data" / "users.acl"
        assert file.stat().st_mode & 0o077 == 0
        platform.submit()
        eventually(
            lambda: any("knative_jobs.work.process" in " ".join(process.cmdline()) for process in platform.processes())
        )
        environments = [process.environ() for process in platform.processes()]
        functions = [environment for environment in environments if "FUNCTION_TARGET" in environment]
        assert {environment["FUNCTION_TARGET"] for environment in functions} == {"worker", "sweeper"}
        assert not any("REDIS_PASSWORDS" in environment for environment in functions), "each has its own alone"
        passwords = {environment.get("REDIS_PASSWORD") for environment in environments} - {"", None}
        assert len(passwords) == 3
        written = platform.said() + "".join(
            f.read_text() for f in (platform.folder / "data").rglob("*.*") if f.is_file()
        )
        assert not any(password in written for password in passwords)

    def test_tokens_work_there_too_under_any_name(self, tmp_path: Path) -> None:
        with Platform(tmp_path, JOB_SECONDS="0", API_TOKENS=TOKENS) as platform:
            assert platform.get("/incomplete_jobs").status == 401
            url = f"{platform.url}/jobs"
            job_id = http.request("POST", url, body=JOB, headers=bearer(WRITER)).json()["id"]
            path = f"{platform.url}/jobs_status?job_id={job_id}"
            eventually(lambda: http.request("GET", path, headers=bearer(READER)).json()["status"] == "complete")
            name = {"Host": "jobs.example"}
            assert http.request("GET", path, headers=name).status == 401
            assert http.request("GET", path, headers=name | bearer(READER)).status == 200
            assert platform.stop() == 0


class TestTls:
    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    @pytest.fixture
    def port(self, store: Redis, authority: trustme.CA) -> Iterator[int]:
        with tls_front(authority, store.port) as port:
            yield port

    def test_redis_is_reached_over_tls_and_only_with_its_own_certificate(
        self, start: Start, port: int, authority: trustme.CA, tmp_path: Path
    ) -> None:
        trusted = tmp_path / "authority.pem"
        authority.cert_pem.write_to_path(str(trusted))

        def post(url: str, **settings: str) -> urllib3.BaseHTTPResponse:
            return start("jobs", REDIS_URL=url, **settings).ready().request("POST", "/jobs", body=JOB)

        url = f"rediss://127.0.0.1:{port}/0"
        assert post(url, SSL_CERT_FILE=str(trusted)).status == 202
        assert post(f"{url}?ssl_ca_certs={trusted}").status == 202
        problem(post(url), 503)
        problem(post(f"rediss://localhost:{port}/0", SSL_CERT_FILE=str(trusted)), 503)


class TestRequests:
    """The server in the image bounds what comes before a body; what it says has no body of ours."""

    @pytest.mark.parametrize(
        ("request_", "status"),
        [
            (b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 600_000 + b"\r\n\r\n", 431),
            (b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n" + b"X: x\r\n" * 200 + b"\r\n", 431),
            (b"GET /openapi.json?" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        ],
        ids=["one long header", "many headers", "a long address"],
    )
    def test_headers_are_bounded(self, endpoint: Start, request_: bytes, status: int) -> None:
        with socket.create_connection(("127.0.0.1", endpoint("openapi").port), timeout=PATIENCE_S) as connection:
            connection.sendall(request_)
            assert connection.recv(100).startswith(b"HTTP/1.1 %d " % status)

    def test_a_long_idempotency_key_is_refused(self, endpoint: Start, store: Redis) -> None:
        answer = endpoint("jobs").request("POST", "/jobs", body=JOB, headers={"Idempotency-Key": "k" * 256})
        assert "255" in problem(answer, 400)
        assert store.client.dbsize() == 0


class TestLog:
    FORGED = "x\nINFO forged\r\nINFO forged\x1b[2K\u2028INFO forged\x1eworker\x1eINFO forged"

    @pytest.mark.parametrize("k_service", ["", "dead-letter"])
    def test_no_value_makes_a_line_of_the_log(self, start: Start, store: Redis, k_service: str) -> None:
        function = start("dead_letter", K_SERVICE=k_service).ready()
        event = {
            "specversion": "1.0",
            "id": self.FORGED,
            "source": self.FORGED,
            "type": "dev.knative-jobs.job.submitted",
            "subject": UNKNOWN_ID,
            "knativeerrordata": self.FORGED,
        }
        headers = {"Content-Type": "application/cloudevents+json"}
        assert function.request("POST", body=json.dumps(event), headers=headers).status == 204
        line = eventually(lambda: [line for line in function.log().splitlines() if "not delivered" in line])
        assert isinstance(line, list)
        assert "forged" in line[0]
        assert function.log().count("forged") == line[0].count("forged"), "all of it is in one line"
        assert "\x1b" not in function.log()

    def test_whatever_is_logged_a_record_is_one_line_and_its_traceback_indented(self) -> None:
        try:
            raise ValueError(self.FORGED)
        except ValueError:
            record = logging.LogRecord("x", logging.ERROR, "", 1, "%s failed", (self.FORGED,), sys.exc_info())
        first, *rest = Plain().format(record).splitlines()
        assert first.startswith("ERROR x\\nINFO forged")
        assert rest
        assert all(line.startswith("    ") for line in rest)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\u2028]", first + "".join(rest))

    def test_every_log_goes_through_these_formatters(self) -> None:
        for path in [*PACKAGE.rglob("*.py"), *(ROOT / "functions").glob("*.py"), ROOT / "local" / "endpoints.py"]:
            formatters = re.findall(
                r"\(logging\.Formatter\)|setFormatter\((?!_Json|Plain|_Formatter\(\))", path.read_text()
            )
            assert len(formatters) == (2 if path.stem == "logs" else 0), path
            assert "print(" not in path.read_text(), path


def test_an_event_carries_the_token_of_its_file(start: Start, broker: Broker, tmp_path: Path) -> None:
    """What Knative Eventing's OIDC asks of who emits."""
    file = tmp_path / "token"
    file.write_text("t1")
    jobs = start("jobs", K_SINK=broker.url, K_SINK_TOKEN_FILE=str(file)).ready()
    for token in ("t1", "t2"):
        file.write_text(token)
        jobs.request("POST", "/jobs", body=JOB)
        eventually(lambda token=token: [h for h, _ in broker.events if h.get("authorization") == f"Bearer {token}"])


def test_the_image_holds_no_build_tools_or_caches_and_runs_as_nobody() -> None:
    text = (ROOT / "Dockerfile").read_text()
    build, image = text.split("FROM ${BASE} AS function")
    assert "--no-cache-dir" in build
    assert "--require-hashes" in build
    assert "pip uninstall" in image
    assert "pip install" not in image
    assert "USER 65532:65532" in image


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-local.txt", "requirements-test.txt"])
def test_every_requirement_is_pinned_with_hashes(name: str) -> None:
    entries = re.split(r"\n(?=\S)", (ROOT / name).read_text().strip())
    for requirement in entries:
        assert re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+", requirement), requirement
        assert "--hash=sha256:" in requirement, requirement


def test_the_audit_says_so_when_it_cannot_ask(tmp_path: Path) -> None:
    """And does not stop a build that has no network."""
    (tmp_path / "pip-audit").write_text("#!/bin/sh\necho 'no connection' >&2\nexit 1\n")
    (tmp_path / "pip-audit").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}:{os.defpath}"}
    done = subprocess.run([ROOT / "scripts" / "audit"], env=env, capture_output=True, text=True)
    assert done.returncode == 0
    assert "not audited" in done.stderr
    (tmp_path / "pip-audit").write_text("#!/bin/sh\necho 'flask 1.0 CVE-1'\nexit 1\n")
    done = subprocess.run([ROOT / "scripts" / "audit"], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "CVE-1" in done.stdout


def test_every_test_that_security_md_names_exists() -> None:
    table = re.findall(r"`(test_\w+|Test\w+)`", (ROOT / "SECURITY.md").read_text())
    written = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    known = set(re.findall(r"(?:def|class) (\w+)", written))
    assert len(table) > 20
    assert set(table) <= known


SCRIPTS = {path.stem for path in LUA.glob("*.lua")}


def scripts_of(target: str) -> set[str]:
    """The scripts that a function can call: what its handler calls, followed through the package."""
    modules = {path.stem: ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
    handler = ast.parse((ROOT / "functions" / f"{target}.py").read_text())
    bodies = {
        (module, node.name): node
        for module, tree in {**modules, "": handler}.items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    origin = {
        (module, alias.asname or alias.name): ((node.module or "").rpartition(".")[2], alias.name)
        for module, tree in {**modules, "": handler}.items()
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("knative_jobs")
        for alias in node.names
    }
    found, seen, todo = set(), set(), [("", target)]
    while todo:
        here = todo.pop()
        module = here[0]
        if here in seen or here not in bodies:
            continue
        seen.add(here)
        for node in ast.walk(bodies[here]):
            match node:
                case ast.Call(func=ast.Name(id="run"), args=[ast.Constant(value=script), *_]) if module == "state":
                    found.add(str(script))
                case ast.Tuple(elts=[ast.Constant(value=script), *_]) if module == "state" and script in SCRIPTS:
                    found.add(str(script))
                case ast.Attribute(value=ast.Name(id=owner), attr=attribute):
                    todo.append((origin.get((module, owner), ("", owner))[1], attribute))
                case ast.Name(id=called):
                    todo.append(origin.get((module, called), (module, called)))
    return found
