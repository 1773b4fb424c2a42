"""The contract: what anybody sees who has curl, wherever the functions run."""

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest

from tests.conftest import eventually
from tests.e2e.conftest import Api

NO_JOB = "00000000-0000-4000-8000-000000000000"


def test_a_job_goes_from_submitted_over_in_progress_to_complete(api: Api) -> None:
    def seen_while_it_ran() -> dict[str, object] | None:
        job = api.submit("1", "2")
        assert job == {"id": job["id"], "start": "1", "end": "2", "status": "submitted"}
        seen = api.wait_for(job["id"], "in progress", "complete")
        return seen if seen["status"] == "in progress" else None

    job = running = eventually(seen_while_it_ran)
    assert job["id"] in api.ids("inprogress_jobs") or api.status(job["id"])["status"] == "complete"
    done = api.wait_for(job["id"], "complete")
    assert {name: done[name] for name in ("id", "start", "end", "attempt")} == {
        "id": job["id"],
        "start": "1",
        "end": "2",
        "attempt": 1,
    }
    assert done["worker-ip"] == running["worker-ip"]
    assert done["submitted-at"] <= done["started-at"] <= done["finished-at"]


def test_the_users_own_session(api: Api) -> None:
    """Five jobs, their status, and the three lists at each moment."""
    ids = [api.submit(str(i), str(i + 1))["id"] for i in range(5)]
    assert set(ids) <= set(api.ids("incomplete_jobs")) | set(api.ids("completed_jobs"))
    assert all(api.request("GET", f"/job_status?job_id={i}").json()["id"] == i for i in ids)
    for job_id in ids:
        api.wait_for(job_id, "complete")
    completed = api.ids("completed_jobs")
    assert [i for i in completed if i in ids] == ids, "oldest first"
    assert not set(ids) & set(api.ids("incomplete_jobs"))
    assert not set(ids) & set(api.ids("inprogress_jobs"))


def test_ten_jobs_are_split_over_two_workers(api: Api) -> None:
    def workers() -> set[str]:
        with ThreadPoolExecutor() as threads:
            ids = [job["id"] for job in threads.map(lambda i: api.submit(i, i), range(10))]
        return {api.wait_for(job_id, "complete")["worker-ip"] for job_id in ids}

    eventually(lambda: len(workers()) >= 2)  # the second may come when the first has done its first ten


def test_curl_without_a_content_type_works(api: Api) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = api.request("POST", "/jobs", body=b'{"start": 1, "end": 2.50}', headers=headers)
    assert answer.status == 202
    assert b'"end":2.50' in answer.data
    assert api.follow(answer.headers["Location"]).json()["id"] == answer.json()["id"]


def test_a_batch_is_answered_in_order(api: Api) -> None:
    batch = [{"start": i, "end": i} for i in range(3)]
    jobs = api.request("POST", "/jobs", body=json.dumps(batch)).json()
    assert [job["start"] for job in jobs] == [0, 1, 2]
    for job in jobs:
        api.wait_for(job["id"], "complete")


def test_an_idempotency_key_makes_one_job_of_two_requests(api: Api) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    first, second = (api.request("POST", "/jobs", body=b'{"start": 1, "end": 2}', headers=headers) for _ in range(2))
    assert first.json() == second.json()
    assert second.headers["Idempotency-Replayed"] == "true"


def test_a_cancelled_job_can_be_tried_again(api: Api) -> None:
    def cancelled() -> str | None:
        jobs = api.request("POST", "/jobs", body=json.dumps([{"start": i, "end": i} for i in range(20)])).json()
        last = jobs[-1]["id"]
        return last if api.request("POST", f"/cancel_job?job_id={last}").status == 200 else None

    last = eventually(cancelled)  # before a worker had it
    assert last in api.ids("cancelled_jobs")
    retried = api.request("POST", f"/retry_job?job_id={last}")
    assert retried.status == 202
    assert api.follow(retried.headers["Location"]).json()["id"] == last
    api.wait_for(last, "complete")
    assert api.request("POST", f"/retry_job?job_id={last}").status == 409


def test_pages_are_linked(api: Api) -> None:
    for job in [api.submit() for _ in range(3)]:
        api.wait_for(job["id"], "complete")
    answer = api.request("GET", "/completed_jobs?limit=2")
    assert len(answer.json()) == 2
    link = answer.headers["Link"]
    assert link.endswith('; rel="next"')
    following = api.follow(link[1 : link.index(">")]).json()
    assert following[0]["submitted-at"] > answer.json()[1]["submitted-at"]


def test_jobs_are_found_by_their_key(api: Api) -> None:
    key = f"order {uuid.uuid4()} / 1"
    jobs = [{"start": "1", "end": "2", "key": key}, {"start": "1", "end": "2"}, {"start": "1", "end": "2", "key": key}]
    made = api.request("POST", "/jobs", body=json.dumps(jobs)).json()
    first, last = made[0]["id"], made[2]["id"]
    for job in made:
        api.wait_for(job["id"], "complete")
    query = urlencode({"key": key})
    assert [job["id"] for job in api.request("GET", f"/completed_jobs?{query}").json()] == [first, last]
    page = api.request("GET", f"/jobs?{query}&limit=1")
    assert [job["id"] for job in page.json()] == [last], "newest first"
    link = page.headers["Link"]
    assert [job["id"] for job in api.follow(link[1 : link.index(">")]).json()] == [first]
    assert api.request("GET", f"/jobs?{query}&colour=red").status == 400


def test_many_jobs_are_cancelled_and_retried_with_one_request(api: Api) -> None:
    key = f"many {uuid.uuid4()}"
    jobs = [{"start": "1", "end": "2", "key": key, "delay": 600} for _ in range(3)]
    made = {job["id"] for job in api.request("POST", "/jobs", body=json.dumps(jobs)).json()}
    query = urlencode({"key": key})
    assert api.request("POST", f"/cancel_jobs?{query}&dry-run=1").json() == {"count": 3}
    cancelled = api.request("POST", f"/cancel_jobs?{query}")
    assert (cancelled.status, cancelled.json()) == (202, {"count": 3})
    assert {job["id"] for job in api.request("GET", f"/cancelled_jobs?{query}").json()} == made
    assert api.request("POST", f"/retry_jobs?{query}&status=cancelled").json() == {"count": 3}
    assert api.request("POST", f"/cancel_jobs?{query}").json() == {"count": 3}
    for job_id in made:
        assert api.request("POST", f"/delete_job?job_id={job_id}").status == 204
    assert api.request("GET", f"/jobs?{query}").json() == []


def test_a_bulk_operation_on_many_jobs_is_a_job_itself(api: Api) -> None:
    key = f"many {uuid.uuid4()}"
    jobs = [{"start": "1", "end": "2", "key": key, "delay": 600} for _ in range(1000)]
    for some in (jobs, jobs[:1]):
        assert api.request("POST", "/jobs", body=json.dumps(some)).status == 202
    query = urlencode({"key": key})
    begun = api.request("POST", f"/cancel_jobs?{query}")
    assert begun.json()["count"] == 1001
    assert api.follow(begun.headers["Location"]).json()["id"] == begun.json()["job-id"]
    done = api.wait_for(begun.json()["job-id"], "complete")
    assert (done["kind"], done["result"]) == ("bulk-operation", {"count": 1001})
    assert api.request("POST", f"/cancel_jobs?{query}&dry-run=1").json() == {"count": 0}


def test_the_log_of_a_job_is_text_and_a_stream_that_ends(api: Api) -> None:
    job_id = api.submit()["id"]
    api.wait_for(job_id, "complete")
    log = api.request("GET", f"/job_log?job_id={job_id}")
    assert (log.status, log.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    stream = api.request("GET", f"/job_log?job_id={job_id}&follow=1")
    assert stream.headers["Content-Type"] == "text/event-stream"
    assert stream.data.decode().endswith("data: complete\n\n")


def test_a_submission_may_wait_for_the_end(api: Api) -> None:
    answer = api.request("POST", "/jobs", body=b'{"start": 1, "end": 2}', headers={"Prefer": "wait=50"})
    assert (answer.status, answer.headers["Preference-Applied"]) == (200, "wait=50")
    assert answer.json()["status"] == "complete"


def test_a_job_with_a_delay_begins_after_it_and_within_seconds(api: Api) -> None:
    answer = api.request("POST", "/jobs", body=b'{"start": 1, "end": 2, "delay": 5, "max-attempts": 1, "timeout": 60}')
    assert answer.status == 202
    job = answer.json()
    assert (job["max-attempts"], job["timeout"]) == (1, 60)
    done = api.wait_for(job["id"], "complete")
    assert done["run-at"] == job["run-at"]
    assert done["submitted-at"] + 5 - 1e-3 <= done["run-at"] <= done["started-at"]
    # The sweeper alone would come within a minute; what is left is for a worker that has to start.
    assert done["started-at"] < done["run-at"] + 50


def test_the_description_says_where_each_route_is(api: Api) -> None:
    document = api.request("GET", "/openapi.json").json()
    for path, item in document["paths"].items():
        if "get" in item:
            [server] = item.get("servers", document["servers"])
            assert api.follow(server["url"].rstrip("/") + path).status in (200, 400), "400: it lacks its parameters"


def test_the_dashboard_has_its_page_and_the_newest_job_first(api: Api) -> None:
    page = api.request("GET", "/dashboard")
    assert page.headers["Content-Type"].startswith("text/html")
    job_id = api.submit()["id"]
    assert api.request("GET", "/dashboard/jobs?limit=1").json()[0]["id"] == job_id
    assert sum(api.request("GET", "/dashboard/overview").json()["counts"].values()) >= 1


@pytest.mark.parametrize(
    ("method", "route", "body", "status"),
    [
        ("POST", "/jobs", b"not json", 400),
        ("POST", "/jobs", b'{"start": "1"}', 400),
        ("POST", "/jobs", b'{"start": "1", "end": 2, "delay": -1}', 400),
        ("POST", "/jobs", b'{"start": "1", "end": 2, "run-at": "2020-01-01T00:00:00Z"}', 400),
        ("POST", "/jobs", b'{"start": "1", "end": 2, "max-attempts": 1000000}', 400),
        ("POST", "/jobs", b'{"start": "1", "end": 2, "timeout": 0}', 400),
        ("POST", "/jobs", b'{"start": "1", "end": 2, "retention": -1}', 400),
        ("POST", "/jobs", b"x" * (1024 * 1024 + 1), 413),
        ("PUT", "/jobs", None, 405),
        ("GET", "/jobs?colour=red", None, 400),
        ("GET", "/failed_jobs?from=yesterday", None, 400),
        ("GET", "/jobs_status", None, 400),
        ("GET", "/jobs_status?job_id=7", None, 400),
        ("GET", f"/jobs_status?job_id={NO_JOB}", None, 404),
        ("POST", f"/cancel_job?job_id={NO_JOB}", None, 404),
        ("DELETE", "/completed_jobs", None, 405),
        ("POST", "/cancel_jobs", None, 400),
        ("POST", "/retry_jobs?status=complete", None, 400),
        ("POST", f"/delete_job?job_id={NO_JOB}", None, 404),
    ],
)
def test_bad_input_gets_a_problem_document(api: Api, method: str, route: str, body: bytes | None, status: int) -> None:
    answer = api.request(method, route, body=body)
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["detail"]
