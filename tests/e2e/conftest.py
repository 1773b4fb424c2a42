"""The API as a black box: on one machine, or on any cluster whose gateway is given.

./scripts/test tests/e2e
./scripts/test tests/e2e -m '' --gateway http://localhost:8080 --domain default.127.0.0.1.sslip.io
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
import urllib3

from harness.local_mode import LocalMode
from tests.conftest import PATIENCE_S, eventually, http


@dataclass
class Api:
    """Where the routes are: all under one address or one host, or each on its Service's host."""

    address: str
    domain: str | None = None
    host: str | None = None

    def request(self, method: str, route: str, **given: Any) -> urllib3.BaseHTTPResponse:
        headers = given.pop("headers", {})
        if self.host:
            headers = {"Host": self.host, **headers}
        elif self.domain:
            name = route.split("?")[0].split("/")[1]
            service = {"job_status": "jobs_status"}.get(name, name).replace("_", "-")
            headers = {"Host": f"{service}.{self.domain}", **headers}
        return http.request(method, self.address + route, headers=headers, **given)

    def follow(self, link: str) -> urllib3.BaseHTTPResponse:
        """GET what a Location or a Link leads to, as a client does that was given it: on a cluster over its gateway."""
        to = urlsplit(link)
        if not (self.domain or self.host):
            return http.request("GET", urljoin(self.address, link))
        route = to._replace(scheme="", netloc="").geturl()
        return http.request("GET", self.address + route, headers={"Host": to.netloc})

    def submit(self, start: object = "1", end: object = "2") -> dict[str, Any]:
        answer = self.request("POST", "/jobs", body=json.dumps({"start": start, "end": end}))
        assert answer.status == 202, answer.data
        followed = self.follow(answer.headers["Location"])
        assert (followed.status, followed.json()["id"]) == (200, answer.json()["id"])
        return dict(answer.json())

    def status(self, job_id: str) -> dict[str, Any]:
        answer = self.request("GET", f"/jobs_status?job_id={job_id}")
        assert answer.status == 200, answer.data
        return dict(answer.json())

    def ids(self, listing: str) -> list[str]:
        return [job["id"] for job in self.request("GET", f"/{listing}").json()]

    def wait_for(self, job_id: str, *statuses: str, within_s: float = PATIENCE_S) -> dict[str, Any]:
        """Return the job once it has one of these statuses."""

        def reached() -> dict[str, Any] | None:
            job = self.status(job_id)
            return job if job["status"] in statuses else None

        found = eventually(reached, within_s)
        assert isinstance(found, dict)
        return found


@pytest.fixture(scope="session")
def on_cluster(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--gateway"))


@pytest.fixture(scope="session")
def api(request: pytest.FixtureRequest, on_cluster: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The API: that of the given cluster, else one started on this machine."""
    if on_cluster:
        domain, host = (request.config.getoption(name) for name in ("--domain", "--host"))
        assert domain or host, "--gateway needs --domain, as in default.127.0.0.1.sslip.io, or --host"
        yield Api(request.config.getoption("--gateway").rstrip("/"), domain, host)
        return
    with one_machine(str(tmp_path_factory.mktemp("data")), JOB_SECONDS="0.3") as local:
        yield Api(local.url)


class one_machine(LocalMode):  # noqa: N801 - read as `with one_machine(...)`
    """`./scripts/local` on a free port, on a data folder that may be there already."""

    as_users_do = True

    def __init__(self, data: str, *options: str, **settings: str) -> None:
        super().__init__(Path(data), *options, **settings)
