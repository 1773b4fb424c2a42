"""Bad input gets a problem document that says what to do, and changes nothing."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import urllib3

from tests.conftest import EXAMPLE, UNKNOWN_ID, Redis, Start, eventually, problem

DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"start=1", "not JSON"),
        (b"\xff\xfe\xfd", "not JSON"),
        (b'{"start": NaN, "end": 1}', "NaN"),
        (b'{"start": 1, "end": 1e}', "not JSON"),
        (DEEP.encode(), "not JSON"),
        (b'"text"', "not a JSON object"),
        (b"7", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"end": "2"}', "has no start"),
        (b'{"start": "1"}', "has no end"),
        (b'{"start": null, "end": "2"}', "start in the body is not a string or a number"),
        (b'{"start": "1", "end": null}', "end in the body"),
        (b'{"start": true, "end": "2"}', "start in the body"),
        (b'{"start": ["1"], "end": "2"}', "start in the body"),
        (b'{"start": {"a": 1}, "end": "2"}', "start in the body"),
        (b'{"start": "\\ud800", "end": "2"}', "not valid Unicode"),
        (b'{"start": "1", "end": "2", "priority": 3}', "priority"),
        (json.dumps({"start": "x" * 5000, "end": 1}).encode(), "5000 bytes"),
        (b"[]", "1 to 1000 jobs"),
        (b'[{"start": "1", "end": "2"}, {"start": "1"}]', "Job 1 of the batch has no end"),
        (b"[" + b",".join([EXAMPLE.encode()] * 1001) + b"]", "1 to 1000 jobs"),
    ],
)
def test_a_body_that_is_no_job_is_refused_and_told_why(endpoint: Start, store: Redis, body: bytes, says: str) -> None:
    detail = problem(endpoint("jobs").request("POST", "/jobs", body=body), 400)
    assert says in detail
    assert "bytes" in says or "Unicode" in says or "1000" in says or EXAMPLE in detail
    assert store.client.dbsize() == 0


def test_a_body_over_one_mebibyte_is_refused(endpoint: Start, store: Redis) -> None:
    too_long = json.dumps({"start": "x" * 1024 * 1024, "end": 1}).encode()
    problem(endpoint("jobs").request("POST", "/jobs", body=too_long), 413)
    chunks = iter([too_long[:500_000], too_long[500_000:]])
    problem(endpoint("jobs").request("POST", "/jobs", body=chunks), 413)
    assert store.client.dbsize() == 0


@pytest.mark.parametrize(
    ("function", "method"), [("jobs_status", "GET"), ("cancel_job", "POST"), ("retry_job", "POST")]
)
class TestJobId:
    @pytest.mark.parametrize("query", ["", "?job_id=", "?job_id=7", "?job_id=*", f"?job_id={UNKNOWN_ID}%0A"])
    def test_missing_or_no_uuid(self, endpoint: Start, store: Redis, function: str, method: str, query: str) -> None:
        assert "UUID" in problem(endpoint(function).request(method, f"/{function}{query}"), 400)

    def test_another_name_for_it_is_refused_with_the_right_one(
        self, endpoint: Start, store: Redis, function: str, method: str
    ) -> None:
        detail = problem(endpoint(function).request(method, f"/{function}?id={UNKNOWN_ID}"), 400)
        assert "There is no parameter 'id'. This takes: job_id" in detail
        assert store.client.dbsize() == 0

    def test_unknown(self, endpoint: Start, store: Redis, function: str, method: str) -> None:
        answer = endpoint(function).request(method, f"/{function}?job_id={UNKNOWN_ID}")
        assert UNKNOWN_ID in problem(answer, 404)
        assert store.client.dbsize() == 0


@pytest.mark.parametrize(
    ("function", "wrong", "allowed"),
    [
        ("jobs", "DELETE", "POST, GET, HEAD"),
        ("jobs", "PUT", "POST, GET, HEAD"),
        ("jobs_status", "POST", "GET, HEAD"),
        ("completed_jobs", "DELETE", "GET, HEAD"),
        ("incomplete_jobs", "PATCH", "GET, HEAD"),
        ("inprogress_jobs", "POST", "GET, HEAD"),
        ("failed_jobs", "POST", "GET, HEAD"),
        ("cancelled_jobs", "POST", "GET, HEAD"),
        ("cancel_job", "GET", "POST"),
        ("retry_job", "GET", "POST"),
        ("sweeper", "GET", "POST"),
        ("dead_letter", "GET", "POST"),
        ("job_requests", "GET", "POST"),
    ],
)
def test_a_wrong_method_is_told_the_right_one(
    endpoint: Start, store: Redis, function: str, wrong: str, allowed: str
) -> None:
    answer = endpoint(function).request(wrong)
    problem(answer, 405)
    assert answer.headers["Allow"] == allowed


def test_a_path_that_is_not_the_functions_own_is_unknown(endpoint: Start) -> None:
    assert "GET /jobs_status" in problem(endpoint("jobs_status").request("GET", "/completed_jobs"), 404)


@pytest.mark.parametrize("path", ["/%C3%BCber%E2%82%AC", "/a%FF%FE", "/%00", "/a%0Ab", "/" + "x" * 3000])
def test_so_is_a_path_of_any_characters(endpoint: Start, path: str) -> None:
    problem(endpoint("jobs_status").request("GET", path), 404)


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit=", "cursor=x", "cursor=(1"])
def test_a_page_that_cannot_be(endpoint: Start, store: Redis, query: str) -> None:
    problem(endpoint("completed_jobs").request("GET", f"/completed_jobs?{query}"), 400)


class TestEvents:
    """A Broker repeats what gets a 5xx, so none of these may."""

    @pytest.fixture
    def job_id(self, endpoint: Start, store: Redis) -> str:
        answer = endpoint("jobs").request("POST", "/jobs", body=EXAMPLE)
        return str(answer.json()["id"])

    @pytest.fixture(params=["worker", "dead_letter"])
    def subscriber(self, endpoint: Start, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def test_what_is_no_cloudevent(self, endpoint: Start, store: Redis, job_id: str, subscriber: str) -> None:
        before = store.record(job_id)
        for body, headers in [
            (b"", {}),
            (b"hello", {"ce-specversion": "1.0"}),
            (b"{", {"content-type": "application/cloudevents+json"}),
            (b'{"specversion": "1.0"}', {"content-type": "application/cloudevents+json"}),
            (b"[1]", {"content-type": "application/cloudevents+json"}),
        ]:
            problem(endpoint(subscriber).request("POST", body=body, headers=headers), 400)
        assert store.record(job_id) == before

    def test_another_type(self, endpoint: Start, store: Redis, job_id: str, subscriber: str) -> None:
        before = store.record(job_id)
        assert endpoint(subscriber).deliver(job_id, kind="com.example.other") == 204
        assert store.record(job_id) == before

    def test_an_unknown_job(self, endpoint: Start, store: Redis, subscriber: str) -> None:
        assert endpoint(subscriber).deliver(UNKNOWN_ID) == 204
        assert store.client.dbsize() == 0

    def test_a_subject_that_is_no_job(self, endpoint: Start, store: Redis, subscriber: str) -> None:
        assert endpoint(subscriber).deliver("../../etc") == 400
        assert store.client.dbsize() == 0


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("JOB_WORK", "no_such_module:work", "No module named 'no_such_module'"),
        ("JOB_WORK", "sample_work:no_such_function", "no function 'no_such_function'"),
        ("JOB_WORK", "sample_work", "package.module:function"),
        ("JOB_SECONDS", "soon", "JOB_SECONDS"),
        ("JOB_MAX_ATTEMPTS", "0", "JOB_MAX_ATTEMPTS"),
        ("JOB_LEASE_SECONDS", "nan", "JOB_LEASE_SECONDS"),
        ("REDIS_URL", "localhost:6379", "REDIS_URL must begin with one of redis://"),
        ("REDIS_URL", "redis://127.0.0.1:port/0", "REDIS_URL has a port that is no number"),
        ("REDIS_URL", "redis://one:6379,two:6379/0", "REDIS_URL has several hosts"),
        ("REDIS_URL", "redis+sentinel://127.0.0.1:26379", "REDIS_URL must end with the primary's name"),
        ("REDIS_URL", "redis+sentinel://127.0.0.1:26379/mymaster/first", "REDIS_URL must end with the primary's name"),
        (
            "REDIS_URL",
            "redis+cluster://one,two/1",
            "REDIS_URL names a database, and a Redis Cluster has no other than 0",
        ),
        ("REDIS_URL", "redis+cluster://one,two", "REDIS_KEY_PREFIX must have a hash tag"),
        ("REDIS_KEY_PREFIX", "it's", "REDIS_KEY_PREFIX must be at most 100 letters"),
        ("REDIS_KEY_PREFIX", "my jobs.", "REDIS_KEY_PREFIX must be at most 100 letters"),
        ("REDIS_KEY_PREFIX", "{}jobs.", "REDIS_KEY_PREFIX must be at most 100 letters"),
        ("REDIS_KEY_PREFIX", "{a}.{b}.", "REDIS_KEY_PREFIX must be at most 100 letters"),
        ("REDIS_KEY_PREFIX", "{a", "REDIS_KEY_PREFIX must be at most 100 letters"),
        ("REDIS_KEY_PREFIX", "jobs*", "REDIS_KEY_PREFIX must be at most 100 letters"),
        ("REDIS_WAIT_REPLICAS", "-1", "REDIS_WAIT_REPLICAS"),
        ("REDIS_WAIT_FSYNC", "yes", "REDIS_WAIT_FSYNC='yes' must be 0 or 1, false or true"),
    ],
)
def test_a_worker_with_a_setting_that_cannot_be_used_refuses_to_start(
    start: Start, name: str, value: str, says: str
) -> None:
    worker = start("worker", **{name: value})
    eventually(lambda: worker.process.poll() is not None)
    assert worker.process.returncode != 0
    assert says in worker.log()


class TestRedisAway:
    REQUESTS = (
        ("jobs", "POST", "/jobs", EXAMPLE),
        ("jobs_status", "GET", f"/jobs_status?job_id={UNKNOWN_ID}", None),
        ("completed_jobs", "GET", "/completed_jobs", None),
        ("incomplete_jobs", "GET", "/incomplete_jobs?limit=5", None),
        ("cancel_job", "POST", f"/cancel_job?job_id={UNKNOWN_ID}", None),
    )

    def test_gone(self, start: Start) -> None:
        for target, method, path, body in self.REQUESTS:
            function = start(target, REDIS_URL="redis://127.0.0.1:9/0").ready()
            self.expect_503(function.request(method, path, body=body))

    def test_silent(self, start: Start, store: Redis) -> None:
        """It takes connections and never answers."""
        functions = [(start(target), *rest) for target, *rest in self.REQUESTS]
        for function, *_ in functions:
            function.ready()
        store.process.send_signal(signal.SIGSTOP)
        try:
            with ThreadPoolExecutor() as threads:
                for answer in threads.map(lambda f: f[0].request(f[1], f[2], body=f[3]), functions):
                    self.expect_503(answer)
        finally:
            store.process.send_signal(signal.SIGCONT)

    def test_silent_for_many_at_once(self, start: Start, store: Redis) -> None:
        """More than there are threads, and none of them waits for those before it."""
        jobs = start("jobs").ready()
        jobs.request("POST", "/jobs", body=EXAMPLE)
        store.process.send_signal(signal.SIGSTOP)
        try:
            with ThreadPoolExecutor(30) as threads:
                # Redis has a second to answer: one after the other, the last would wait for half a minute.
                for answer in threads.map(lambda _: jobs.request("POST", "/jobs", body=EXAMPLE, timeout=20), range(30)):
                    self.expect_503(answer)
        finally:
            store.process.send_signal(signal.SIGCONT)

    def test_refusing_writes_leaves_nothing_half_written(self, start: Start, store: Redis) -> None:
        jobs = start("jobs").ready()
        for name, value, normal in [("maxmemory", "1", "0"), ("min-replicas-to-write", "1", "0")]:
            store.client.config_set(name, value)
            try:
                answer = jobs.request("POST", "/jobs", body=f"[{EXAMPLE}, {EXAMPLE}]")
            finally:
                store.client.config_set(name, normal)
            self.expect_503(answer)
            assert store.client.dbsize() == 0

    def test_a_read_only_replica(self, start: Start, store: Redis) -> None:
        jobs = start("jobs").ready()
        store.client.replicaof("127.0.0.1", "9")
        try:
            answer = jobs.request("POST", "/jobs", body=EXAMPLE)
        finally:
            store.client.replicaof("NO", "ONE")
        self.expect_503(answer)
        assert store.client.dbsize() == 0

    def test_back_again(self, start: Start, store: Redis) -> None:
        jobs = start("jobs").ready()
        assert jobs.request("POST", "/jobs", body=EXAMPLE).status == 202
        store.client.script_flush()
        store.client.client_kill_filter(_type="normal")
        assert jobs.request("POST", "/jobs", body=EXAMPLE).status == 202

    def expect_503(self, answer: urllib3.BaseHTTPResponse) -> None:
        problem(answer, 503)
        assert int(answer.headers["Retry-After"]) > 0
