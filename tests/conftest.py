"""Real parts for the tests: a Redis server, and each function in a process of its own, as in the image."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NoReturn
from urllib.parse import urljoin

import hypothesis
import pytest
import redis
import urllib3
from redis.backoff import NoBackoff
from redis.retry import Retry
from xdist.workermanage import NodeManager, WorkerController

from harness.waiting import until
from knative_jobs.runtime.settings import Settings
from knative_jobs.store import thread_connection
from knative_jobs.store.state import NewJob
from local import manifests, ports, redis_server, redis_users
from tests import browser

ROOT = Path(__file__).parent.parent
hypothesis.settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy machine")
PATIENCE_S = 100
"""How long a test waits for what must come. On a busy machine a process may need long to start."""
http = urllib3.PoolManager(timeout=PATIENCE_S, retries=False)
NEVER = Retry(NoBackoff(), 0)
"""For a client that is refused, or whose server is away, on purpose."""
SERVER = {service.target: service.server for service in manifests.services()}
REDIS_USER = {service.target: service.redis_user for service in manifests.services()} | {"api": redis_users.API}
FIRST_PORT, EACH = 10_000, 2000
"""Below the ports of outgoing connections, and those that local mode chooses."""
_BEGIN = FIRST_PORT + EACH * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 5)
PORTS = itertools.cycle(_BEGIN + (os.getpid() + n) % EACH for n in range(EACH))
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
EXAMPLE = '{"start": "1", "end": "2"}'
FRAMEWORK = str(Path(sys.executable).parent / "functions-framework")


def free_port() -> int:
    """A port that nobody takes before the server that it is for: each process of a run has some of its own."""
    return next(port for port in PORTS if not ports.taken(port, "127.0.0.1"))


def eventually(check: Callable[[], object], within_s: float = PATIENCE_S) -> object:
    """Return the first true value of `check`; fail when there is none in time."""
    value = until(check, within_s)
    assert value, f"not so within {within_s} s"
    return value


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def new_job(job_id: str, numbers: str = "", kind: str = "default", options: str = "", key: str = "") -> NewJob:
    """A job to be submitted to the state itself."""
    return NewJob(job_id, kind, "1", "2", numbers, "", options, key)


@contextmanager
def store_with(settings: Callable[[], Settings], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the store in this process have these settings, and a connection of its own."""
    for name, module in list(sys.modules.items()):
        if name.startswith("knative_jobs.store.") and hasattr(module, "settings"):
            monkeypatch.setattr(module, "settings", settings)
    thread_connection.own.cache_clear()
    yield
    thread_connection.own().connection.disconnect()
    thread_connection.own.cache_clear()


class Receiver(ThreadingHTTPServer):
    """An HTTP server on a port of its own, or a given one, for what our functions send."""

    request_queue_size = 128

    def __init__(self, take: Callable[[str, dict[str, str], bytes], int | None], port: int = 0) -> None:
        """Hand each POST to `take` as (path, headers, body), and answer its status; hang up when that is None."""

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = take(self.path, headers, self.rfile.read(int(headers["content-length"])))
                if status:
                    self.send_response(status)
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class Broker:
    """Keeps what it is sent, and takes its time."""

    def __init__(self) -> None:
        self.events: list[tuple[dict[str, str], dict[str, str]]] = []
        self.answers_after_s: float = 0
        self.answers = threading.Event()
        self.answers.set()
        self.answered = 0
        self.server = Receiver(self.take)
        self.url = f"{self.server.url}/default/default"

    def take(self, _: str, headers: dict[str, str], body: bytes) -> int:
        self.events.append((headers, json.loads(body)))
        time.sleep(self.answers_after_s)
        self.answers.wait()
        self.answered += 1
        return 202


class Redis:
    """A Redis server that a test may stop, start, and read behind the API's back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        users = ("reader", "submitter", "api", "worker", "sweeper", "admin")
        self.passwords = {name: f"password of {name}" for name in users}
        self.client = self.connect("admin")
        self.start()

    def connect(self, user: str) -> redis.Redis:
        password = self.passwords.get(user)
        return redis.Redis(port=self.port, username=user, password=password, decode_responses=True, retry=NEVER)

    def settings(self, target: str) -> dict[str, str]:
        """How a function reaches it: as the user of its kind."""
        user = REDIS_USER[target]
        return {"REDIS_URL": self.url, "REDIS_USERNAME": user, "REDIS_PASSWORD": self.passwords.get(user, "")}

    def start(self, *options: str) -> None:
        """Start it with the users of the cluster, and an `admin` for the tests alone."""
        users = self.folder / "users.acl"
        users.write_text(redis_users.acl(redis_users.rules() | {"admin": redis_users.ADMIN}, self.passwords))
        command = [redis_server.binary(), "--port", str(self.port), "--dir", str(self.folder), "--save", ""]
        command += ["--aclfile", str(users)]
        command += ["--appendonly", "yes", "--maxmemory-policy", "noeviction", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        eventually(self._is_ready)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def record(self, job_id: str) -> dict[str, str]:
        return self.client.hgetall(f"job.{job_id}")

    def _is_ready(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.exceptions.ConnectionError:
            return False


class Function:
    """One function in its own process; `log()` is what it has printed so far."""

    def __init__(self, target: str, folder: Path, command: list[str] | None = None, **settings: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = folder / f"{target}-{self.port}.log"
        granian = ["-m", "granian", "--no-ws", "--port", str(self.port), "knative_jobs.server.app:app"]
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *(command or granian)],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
                env={
                    "PATH": os.environ["PATH"],
                    "PORT": str(self.port),
                    "PYTHONPATH": f"{ROOT / 'functions'}{os.pathsep}{ROOT / 'tests'}",
                    "FUNCTION_TARGET": target,
                    "FUNCTION_SOURCE": f"functions/{target}.py",
                    "GRANIAN_INTERFACE": "asgi",
                    **SERVER.get(target, {}),
                    **settings,
                },
            )

    def ready(self) -> "Function":
        eventually(lambda: answers(self.port) or self.process.poll() is not None)
        assert self.process.poll() is None, self.log()
        return self

    def log(self) -> str:
        return self.log_file.read_text()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the server and its children as a group, as the end of a container does."""
        os.killpg(self.process.pid, number)
        self.process.wait()

    def request(self, method: str, path: str = "/", **given: object) -> urllib3.BaseHTTPResponse:
        """Send a request to a path, or to a link that an answer had."""
        return http.request(method, urljoin(self.url, path), **given)

    def deliver(self, job_id: str, kind: str = "dev.knative-jobs.job.submitted", **given: str) -> int:
        """Deliver the event of a job in binary mode, as a Trigger does. Return the status of the answer."""
        attributes = {"specversion": "1.0", "type": kind, "source": "/jobs", "id": f"{job_id}.1", "subject": job_id}
        headers = {f"ce-{name}": value for name, value in (attributes | given).items()}
        return self.request("POST", headers=headers | {"content-type": "application/json"}, body=b"{}").status


Start = Callable[..., Function]


def problem(answer: urllib3.BaseHTTPResponse, status: int) -> str:
    assert answer.status == status, answer.data
    assert answer.headers["Content-Type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert document["type"]
    assert document["title"]
    detail: str = document["detail"]
    return detail


def events(function: Function, job_id: str, last_id: str = "") -> Iterator[tuple[str, dict[str, object]]]:
    """The id and the record of each event, until the stream ends."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    answer = function.request("GET", f"/job_events?job_id={job_id}", headers=headers, preload_content=False)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
    text = ""
    try:
        for chunk in answer.stream():
            text += chunk.decode()
            while "\n\n" in text:
                event, _, text = text.partition("\n\n")
                fields = dict(line.split(": ", 1) for line in event.splitlines())
                if "data" in fields:
                    yield fields["id"], json.loads(fields["data"])
    finally:
        answer.close()


def deliver_soon(worker: Function, job_id: str) -> threading.Thread:
    """Deliver an event whose worker may not live to answer."""

    def deliver() -> None:
        try:
            worker.deliver(job_id)
        except Exception as error:
            assert "Connection" in repr(error) or "Protocol" in repr(error)  # noqa: PT017

    thread = threading.Thread(target=deliver)
    thread.start()
    return thread


@contextmanager
def connected(store: Redis, user: str, monkeypatch: pytest.MonkeyPatch, **given: float) -> Iterator[None]:
    """Let this process reach Redis as the functions of a kind do."""
    settings = Settings(redis_url=store.url, redis_username=user, redis_password=store.passwords[user], **given)
    with store_with(lambda: settings, monkeypatch):
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--gateway", help="address of the gateway of a cluster that runs this, for tests/e2e")
    parser.addoption("--domain", help="domain of its Services, as in knative-jobs.127.0.0.1.sslip.io")
    parser.addoption("--host", help="the one host of all its routes, in the place of --domain: components/one-endpoint")
    parser.addoption("--redeploy", action="store_true", help="the cluster is for tests: they may deploy and delete all")
    parser.addoption("--namespace", default="knative-jobs", help="namespace that kubectl finds them in")


def pytest_configure() -> None:
    """On SIGTERM or SIGINT, stop what the tests have started, and print what has failed so far.

    The processes of xdist would end at once on the one and ignore the other.
    """

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)
    NodeManager.EXIT_TIMEOUT = PATIENCE_S  # seconds; then it kills them


def pytest_collection_finish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        have_a_browser(session.config, [item.nodeid for item in session.items])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: WorkerController, ids: list[str]) -> None:
    have_a_browser(node.config, ids)


def have_a_browser(config: pytest.Config, ids: list[str]) -> None:
    """Before the first test, have a browser if any of them needs it."""
    if not config.option.collectonly and any(name.startswith(browser.TESTS) for name in ids):
        browser.have_one(config.get_terminal_writer().line)


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    server = Redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def store(shared_redis: Redis) -> Redis:
    """An empty Redis, with connection and scripts as a first start finds it."""
    shared_redis.client.flushall()
    shared_redis.client.script_flush()
    return shared_redis


@pytest.fixture(scope="session")
def endpoint(shared_redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start a function on the shared Redis, once for all tests that give it the same settings."""

    @cache
    def start(target: str, **settings: str) -> Function:
        given = {**shared_redis.settings(target), "SWEEP_SECONDS": "0", **settings}
        running.append(Function(target, tmp_path_factory.mktemp(target), **given))
        return running[-1].ready()

    running: list[Function] = []

    yield start
    for function in running:
        function.kill()


@pytest.fixture
def start(tmp_path: Path, store: Redis) -> Iterator[Start]:
    """Start a function for one test, with settings of its own."""
    running: list[Function] = []

    def start(target: str, **settings: str) -> Function:
        running.append(Function(target, tmp_path, **{**store.settings(target), **settings}))
        return running[-1]

    yield start
    for function in running:
        if function.process.poll() is None:
            function.kill()


@pytest.fixture
def effects(tmp_path: Path) -> Path:
    return tmp_path / "effects"


@pytest.fixture
def submit(endpoint: Start, store: Redis) -> Callable[[str], str]:
    def submit(start: str) -> str:
        body = json.dumps({"start": start, "end": 2})
        return str(endpoint("jobs").request("POST", "/jobs", body=body).json()["id"])

    return submit


@pytest.fixture
def status(endpoint: Start) -> Callable[[str], dict[str, object]]:
    def status(job_id: str) -> dict[str, object]:
        return dict(endpoint("jobs_status").request("GET", f"/jobs_status?job_id={job_id}").json())

    return status


@pytest.fixture
def worker(start: Start, effects: Path) -> Iterator[Start]:
    def worker(**settings: str) -> Function:
        given = {"JOB_WORK": "sample_work:work", "EFFECTS": str(effects), "JOB_BACKOFF_SECONDS": "0.2", **settings}
        return start("worker", **given).ready()

    return worker


@pytest.fixture
def broker() -> Iterator[Broker]:
    broker = Broker()
    yield broker
    broker.server.stop()
