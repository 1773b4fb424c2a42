"""Where links in answers lead: Location, Link, and the servers of the OpenAPI document."""

import json
import re
from urllib.parse import urlsplit

import pytest

from tests.conftest import EXAMPLE, Redis, Start, eventually

CLUSTER = "knative-jobs.example.com"
PUBLIC = "https://api.example.com/v1"
PROXY = {"TRUST_PROXY": "true"}


def service(name: str, **settings: str) -> dict[str, str]:
    return {"K_SERVICE": name, **settings}


class TestLocation:
    def location(self, endpoint: Start, settings: dict[str, str], **headers: str) -> str:
        answer = endpoint("jobs", **settings).request("POST", "/jobs", body=EXAMPLE, headers=headers)
        assert answer.status == 202
        address, _, query = answer.headers["Location"].partition("/jobs_status?")
        assert query == f"job_id={answer.json()['id']}"
        return address

    @pytest.mark.parametrize(
        ("host", "expected"),
        [
            (f"jobs.{CLUSTER}", f"http://jobs-status.{CLUSTER}"),
            (f"JOBS.{CLUSTER}:8080", f"http://jobs-status.{CLUSTER}:8080"),
            ("jobs.knative-jobs.svc.cluster.local", "http://jobs-status.knative-jobs.svc.cluster.local"),
            ("jobs.knative-jobs", "http://jobs-status.knative-jobs"),
            ("jobs", "http://jobs-status"),
            ("api.example.com", "http://api.example.com"),
            ("jobs-api.example.com", "http://jobs-api.example.com"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ],
    )
    def test_on_a_cluster_it_is_the_host_of_the_other_service(
        self, endpoint: Start, store: Redis, host: str, expected: str
    ) -> None:
        assert self.location(endpoint, service("jobs"), Host=host) == expected

    def test_a_service_may_have_another_name(self, endpoint: Start, store: Redis) -> None:
        assert self.location(endpoint, service("submit"), Host=f"submit.{CLUSTER}") == f"http://jobs-status.{CLUSTER}"

    @pytest.mark.parametrize("host", ["localhost:5000", "127.0.0.1:5000", "[::1]:5000", f"jobs.{CLUSTER}"])
    def test_elsewhere_it_is_the_host_that_was_asked(self, endpoint: Start, store: Redis, host: str) -> None:
        assert self.location(endpoint, {}, Host=host) == f"http://{host}"

    def test_a_service_that_has_all_routes_keeps_its_host(self, endpoint: Start, store: Redis) -> None:
        """As with components/one-endpoint."""
        all_here = service("jobs", FUNCTION_TARGET="api", FUNCTION_SOURCE="functions/api.py")
        assert self.location(endpoint, all_here, Host=f"jobs.{CLUSTER}") == f"http://jobs.{CLUSTER}"

    def test_behind_one_address_it_is_that(self, endpoint: Start, store: Redis) -> None:
        for settings in ({}, service("jobs")):
            assert self.location(endpoint, {**settings, "PUBLIC_URL": PUBLIC + "/"}, Host=f"jobs.{CLUSTER}") == PUBLIC

    @pytest.mark.parametrize(
        ("headers", "scheme"),
        [
            ({}, "http"),
            ({"X-Forwarded-Proto": "https"}, "https"),
            ({"X-Forwarded-Proto": "HTTPS, http"}, "https"),
            ({"X-Forwarded-Proto": "javascript"}, "http"),
            ({"Forwarded": "for=192.0.2.1;proto=https, for=10.0.0.1;proto=http"}, "https"),
            ({"Forwarded": 'Proto="https"'}, "https"),
            ({"Forwarded": "for=192.0.2.1", "X-Forwarded-Proto": "https"}, "https"),
            ({"Forwarded": "for=192.0.2.1;host=evil.example;proto=http"}, "http"),
        ],
    )
    def test_a_trusted_proxy_says_how_the_client_came(
        self, endpoint: Start, store: Redis, headers: dict[str, str], scheme: str
    ) -> None:
        host = f"jobs.{CLUSTER}"
        found = self.location(endpoint, service("jobs", **PROXY), Host=host, **headers)
        assert found == f"{scheme}://jobs-status.{CLUSTER}"
        assert self.location(endpoint, service("jobs"), Host=host, **headers) == f"http://jobs-status.{CLUSTER}"

    def test_a_retry_says_it_too(self, endpoint: Start, store: Redis) -> None:
        job_id = endpoint("jobs").request("POST", "/jobs", body=EXAMPLE).json()["id"]
        endpoint("cancel_job").request("POST", f"/cancel_job?job_id={job_id}")
        retry = endpoint("retry_job", **service("retry-job"))
        answer = retry.request("POST", f"/?job_id={job_id}", headers={"Host": f"retry-job.{CLUSTER}"})
        assert answer.headers["Location"] == f"http://jobs-status.{CLUSTER}/jobs_status?job_id={job_id}"


class TestNext:
    @pytest.mark.parametrize(
        ("target", "route"), [("incomplete_jobs", "/incomplete_jobs"), ("dashboard", "/dashboard/jobs")]
    )
    @pytest.mark.parametrize("public", ["", PUBLIC])
    def test_it_is_the_route_of_the_list_wherever_that_was_asked(
        self, endpoint: Start, store: Redis, target: str, route: str, public: str
    ) -> None:
        endpoint("jobs").request("POST", "/jobs", body=f"[{EXAMPLE}, {EXAMPLE}]")
        name = target.replace("_", "-")
        function = endpoint(target, **service(name, PUBLIC_URL=public))
        paths = (route,) if target == "dashboard" else (route, "/", route + "/")
        for path in paths:
            answer = function.request("GET", f"{path}?limit=1", headers={"Host": f"{name}.{CLUSTER}"})
            [(address, query)] = re.findall(rf'^<(.*){route}\?(\S+)>; rel="next"$', answer.headers["Link"])
            assert address == (public or f"http://{name}.{CLUSTER}")
            assert query.startswith("limit=1&cursor=")


class TestServers:
    def servers(self, endpoint: Start, host: str, **settings: str) -> dict[str, set[str]]:
        """The addresses of each path of the document."""
        answer = endpoint("openapi", **settings).request("GET", "/openapi.json", headers={"Host": host})
        document = json.loads(answer.data)
        general = document["servers"]
        return {
            path: {server["url"] for server in item.get("servers", general)} for path, item in document["paths"].items()
        }

    def test_a_path_is_on_the_host_of_its_service(self, endpoint: Start) -> None:
        found = self.servers(endpoint, f"openapi.{CLUSTER}", **service("openapi"))
        assert found["/jobs"] == {f"http://jobs.{CLUSTER}"}
        assert found["/job_status"] == found["/jobs_status"] == {f"http://jobs-status.{CLUSTER}"}
        assert found["/dashboard/jobs"] == {f"http://dashboard.{CLUSTER}"}
        assert found["/openapi.json"] == {f"http://openapi.{CLUSTER}"}

    @pytest.mark.parametrize(
        ("settings", "address"),
        [({}, "http://localhost:5000"), ({"PUBLIC_URL": PUBLIC}, PUBLIC)],
    )
    def test_one_address_has_all(self, endpoint: Start, settings: dict[str, str], address: str) -> None:
        assert set.union(*self.servers(endpoint, "localhost:5000", **settings).values()) == {address}


def test_a_client_made_from_the_document_works_on_a_cluster(endpoint: Start, store: Redis) -> None:
    """Each path is asked at the host that the document gives it, as a gateway brings it to its Service."""
    answer = endpoint("openapi", **service("openapi")).request(
        "GET", "/openapi.json", headers={"Host": f"openapi.{CLUSTER}"}
    )
    asked = 0
    for path, item in answer.json()["paths"].items():
        host = urlsplit(item["servers"][0]["url"]).netloc
        name = host.partition(".")[0]
        function = endpoint(name.replace("-", "_"), **service(name))
        for method in item.keys() & {"get", "post"}:
            status = function.request(method.upper(), path, headers={"Host": host}).status
            assert status in (200, 400), "400: it lacks its parameters"
            asked += 1
    assert asked > 10


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PUBLIC_URL", "api.example.com"),
        ("PUBLIC_URL", "ftp://api.example.com"),
        ("PUBLIC_URL", "https://api.example.com/?x"),
        ("PUBLIC_URL", "https://user@api.example.com"),
        ("PUBLIC_URL", "https://a b"),
        ("TRUST_PROXY", "yes"),
    ],
)
def test_a_setting_that_cannot_be_used_stops_the_start(start: Start, name: str, value: str) -> None:
    jobs = start("jobs", **{name: value})
    eventually(lambda: jobs.process.poll() is not None)
    assert jobs.process.returncode != 0
    assert name in jobs.log()
