"""Finding jobs: by kind, by who submitted them, by their key, by when, and by several of these at once."""

import json
import re
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest

from knative_jobs.store import state
from local import manifests
from tests.conftest import Redis, Start, connected, new_job, problem

TOKENS = " ".join(f"{name}:write:{sha256(name.encode()).hexdigest()}" for name in ("ci", "cli"))
LISTS = ("incomplete_jobs", "completed_jobs", "inprogress_jobs", "failed_jobs", "cancelled_jobs")


def submit(endpoint: Start, *jobs: dict[str, Any], token: str = "") -> list[str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    settings = {"API_TOKENS": TOKENS} if token else {}
    given = json.dumps([{"start": "1", "end": "2"} | job for job in jobs])
    answer = endpoint("jobs", **settings).request("POST", "/jobs", body=given, headers=headers)
    assert answer.status == 202, answer.data
    return [job["id"] for job in answer.json()]


def find(endpoint: Start, query: str, route: str = "incomplete_jobs") -> list[str]:
    answer = endpoint(route).request("GET", f"/{route}?{query}")
    assert answer.status == 200, answer.data
    return [job["id"] for job in answer.json()]


def test_the_key_of_a_job_comes_back_with_it(endpoint: Start, store: Redis) -> None:
    for key in ("customer-17", "Jürgen / 17 %", "x" * 255, "🐝"):
        answer = endpoint("jobs").request("POST", "/jobs", body=json.dumps({"start": "1", "end": 2, "key": key}))
        assert (answer.status, answer.json()["key"]) == (202, key)
        record = endpoint("jobs_status").request("GET", f"/jobs_status?job_id={answer.json()['id']}").json()
        assert record["key"] == key


@pytest.mark.parametrize("key", ["", "x" * 256, "a\u0000b", "a\nb", "\u007f", 17, None, ["a"]])
def test_what_is_no_key_is_refused(endpoint: Start, store: Redis, key: object) -> None:
    answer = endpoint("jobs").request("POST", "/jobs", body=json.dumps({"start": "1", "end": 2, "key": key}))
    assert "key in the body is not a string of 1 to 255 characters" in problem(answer, 400)
    assert store.client.keys() == []


def test_a_key_finds_all_its_jobs_and_no_other(endpoint: Start, store: Redis) -> None:
    a, ab, b, _ = submit(endpoint, {"key": "a"}, {"key": "a b"}, {"key": "b"}, {})
    (again,) = submit(endpoint, {"key": "a"})
    assert find(endpoint, "key=a") == [a, again]
    assert find(endpoint, "key=a%20b") == [ab]
    assert find(endpoint, "key=b") == [b]
    assert find(endpoint, "key=c") == []
    assert find(endpoint, "key=a", "completed_jobs") == []
    assert find(endpoint, "key=a", "jobs") == [again, a], "newest first"


def test_another_key_makes_another_request_of_an_idempotency_key(endpoint: Start, store: Redis) -> None:
    def status(key: str) -> int:
        body = json.dumps({"start": "1", "end": 2, "key": key})
        return endpoint("jobs").request("POST", "/jobs", body=body, headers={"Idempotency-Key": "k"}).status

    assert [status(key) for key in ("a", "a", "b")] == [202, 202, 422]


def test_jobs_are_found_by_who_submitted_them(endpoint: Start, store: Redis) -> None:
    (by_ci,), (by_cli,), (_,) = (submit(endpoint, {}, token=token) for token in ("ci", "cli", ""))
    assert find(endpoint, "submitted-by=ci") == [by_ci]
    assert find(endpoint, "submitted-by=cli") == [by_cli]
    assert find(endpoint, "submitted-by=nobody") == []


def test_jobs_are_found_by_when_they_were_submitted(endpoint: Start, store: Redis) -> None:
    first, second, third = (submit(endpoint, {})[0] for _ in range(3))
    at = json.loads(endpoint("jobs_status").request("GET", f"/jobs_status?job_id={second}").data)["submitted-at"]
    written = datetime.fromtimestamp(at, UTC).isoformat()
    for moment in (f"{at:.6f}", written, written.replace("+", "%2B")):
        assert find(endpoint, f"from={moment}") == [second, third]
        assert find(endpoint, f"to={moment}") == [first]
        assert find(endpoint, f"from={moment}&to={moment}") == []
    assert find(endpoint, "from=1970-01-01T00:00:00Z&to=2200-01-01T00:00:00Z") == [first, second, third]
    assert find(endpoint, f"from={at + 3600}") == []


def test_a_list_may_begin_with_the_newest(endpoint: Start, store: Redis) -> None:
    ids = submit(endpoint, *[{"key": str(n % 2)} for n in range(5)])
    assert find(endpoint, "order=newest") == ids[::-1]
    assert find(endpoint, "order=newest&key=0&limit=2") == [ids[4], ids[2]]
    assert find(endpoint, "order=oldest", "jobs") == ids


def test_several_filters_hold_at_once(endpoint: Start, start: Start, store: Redis) -> None:
    settings = {"API_TOKENS": TOKENS, "JOB_KINDS": "default add"}
    jobs = [{"start": "1", "end": "2", "kind": kind, "key": key} for kind in ("default", "add") for key in "ab"]
    ids = {}
    for token in ("ci", "cli"):
        headers = {"Authorization": f"Bearer {token}"}
        answer = endpoint("jobs", **settings).request("POST", "/jobs", body=json.dumps(jobs), headers=headers)
        ids |= {(token, job.get("kind", "default"), job["key"]): job["id"] for job in answer.json()}
    cancel = endpoint("cancel_job")
    assert cancel.request("POST", f"/cancel_job?job_id={ids['ci', 'add', 'a']}").status == 200

    def found(route: str, query: str) -> list[str]:
        answer = endpoint(route, JOB_KINDS="default add").request("GET", f"/{route}?{query}")
        return [job["id"] for job in answer.json()]

    assert found("cancelled_jobs", "key=a&kind=add&submitted-by=ci") == [ids["ci", "add", "a"]]
    assert found("cancelled_jobs", "key=a&kind=add&submitted-by=cli") == []
    assert found("jobs", "key=a&kind=add") == [ids["cli", "add", "a"], ids["ci", "add", "a"]]
    assert found("jobs", "key=a&kind=add&status=submitted") == [ids["cli", "add", "a"]]
    assert found("jobs", "submitted-by=cli&key=b&kind=default") == [ids["cli", "default", "b"]]


def test_all_jobs_are_listed_in_pages_newest_first(endpoint: Start, store: Redis) -> None:
    ids = submit(endpoint, *[{"key": "k"}] * 105)
    jobs = endpoint("jobs")
    for query in ("", "?key=k", "?limit=50&from=0"):
        path, seen, sizes = "/jobs" + query, [], []
        while path:
            answer = jobs.request("GET", path)
            sizes.append(len(answer.json()))
            seen += [job["id"] for job in answer.json()]
            link = re.fullmatch(r'<(\S+)>; rel="next"', answer.headers.get("Link", ""))
            path = link and link[1]
        assert seen == ids[::-1]
        assert sizes == ([50, 50, 5] if "limit" in query else [100, 5])


def test_few_jobs_among_many_are_found_however_far_apart(
    endpoint: Start, store: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both words are common, and both together are rare: pages without a job still lead on to those with one."""
    made = [f"{n:08d}-0000-4000-8000-000000000000" for n in range(24_000)]
    with connected(store, "submitter", monkeypatch):
        state.submit([new_job(made[0], key="a")], submitted_by="ci")
        for begin in range(1, 23_999, 1000):
            some = made[begin : begin + 1000][: 23_999 - begin]
            state.submit([new_job(job_id, key="a") for job_id in some[::2]], submitted_by="cli")
            state.submit([new_job(job_id, key="b") for job_id in some[1::2]], submitted_by="ci")
        state.submit([new_job(made[-1], key="a")], submitted_by="ci")
    assert find(endpoint, "key=a&submitted-by=ci") == [made[0], made[-1]]
    path, pages = "/jobs?key=a&submitted-by=ci&order=oldest&limit=10", []
    while path:
        answer = endpoint("jobs").request("GET", path)
        pages.append([job["id"] for job in answer.json()])
        path = answer.headers["Link"].split(">")[0][1:] if "Link" in answer.headers else ""
    assert pages == [[made[0]], [], [made[-1]]]


def test_what_a_job_is_found_by_goes_when_it_is_removed(
    endpoint: Start, store: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = submit(endpoint, {"key": "a", "retention": 0.1}, {"key": "a"}, token="ci")
    endpoint("cancel_job").request("POST", f"/cancel_job?job_id={ids[0]}")
    with connected(store, "sweeper", monkeypatch):
        while store.client.exists(f"job.{ids[0]}"):
            state.purge()
    for index, word in (("by-key", "a"), ("by-submitter", "ci")):
        (entry,) = store.client.zrange(f"jobs.{index}", 0, -1)
        assert entry.startswith(f"{word}\0")
        assert entry.endswith(f"\0{ids[1]}")


def test_jobs_from_before_there_were_these_indexes_are_found_once_the_sweeper_came(
    endpoint: Start, store: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = submit(endpoint, {}, {}, token="ci")
    store.client.delete("jobs.by-submitter")
    assert find(endpoint, "submitted-by=ci") == []
    with connected(store, "sweeper", monkeypatch):
        assert sorted(state.check().mended) == sorted(ids)
    assert find(endpoint, "submitted-by=ci") == ids


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("kynd=default", "There is no parameter 'kynd'. This takes: "),
        ("key=a&key=b", "key is in the query 2 times"),
        ("key=a%00b", "key is a string of 1 to 255 characters"),
        (f"submitted-by={'x' * 256}", "submitted-by is a string of 1 to 255 characters"),
        ("from=yesterday", "from is a time: seconds since the epoch, or as 2026-11-26T10:00:00Z; not 'yesterday'"),
        ("to=-1", "to is a time"),
        ("to=2026-11-26T10:00:00", "to is a time"),
        ("order=backwards", "order is newest or oldest"),
        ("kind=nobody", "kind is one of"),
    ],
)
def test_a_query_that_cannot_be_is_refused(endpoint: Start, store: Redis, query: str, detail: str) -> None:
    for route in (*LISTS, "jobs"):
        answer = endpoint(route).request("GET", f"/{route}?{query}")
        assert detail in problem(answer, 400)
    assert detail in problem(endpoint("dashboard").request("GET", f"/dashboard/jobs?{query}"), 400)


def test_no_public_endpoint_takes_a_parameter_that_it_does_not_know(endpoint: Start, store: Redis) -> None:
    (job_id,) = submit(endpoint, {})
    for service in manifests.services():
        if not service.public or service.target == "dashboard":
            continue
        method = "POST" if re.match("cancel_|retry_|delete_", service.target) else "GET"
        route = "/openapi.json" if service.target == "openapi" else f"/{service.target}"
        answer = endpoint(service.target).request(method, f"{route}?job_id={job_id}&colour=red")
        assert "There is no parameter" in problem(answer, 400), service.target
    refused = endpoint("jobs").request("POST", "/jobs?kind=add", body='{"start": 1, "end": 2}')
    assert "This takes none." in problem(refused, 400)
    assert find(endpoint, "") == [job_id], "nothing was changed"


def test_a_token_that_may_only_read_may_list_all_jobs_and_submit_none(endpoint: Start, store: Redis) -> None:
    tokens = f"reader:read:{sha256(b'reader').hexdigest()}"
    jobs = endpoint("jobs", API_TOKENS=tokens)
    bearer = {"Authorization": "Bearer reader"}
    assert jobs.request("GET", "/jobs", headers=bearer).status == 200
    assert jobs.request("GET", "/jobs").status == 401
    assert jobs.request("POST", "/jobs", headers=bearer, body='{"start": 1, "end": 2}').status == 403
