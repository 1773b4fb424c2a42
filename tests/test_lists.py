"""The lists: every job once, oldest first, whole or page by page."""

import json
import re

import pytest
import urllib3

from knative_jobs.server.asgi import MAX_HELD_BYTES
from tests.conftest import Redis, Start

JOB = {"start": "1", "end": "2"}


def submit(endpoint: Start, count: int) -> list[str]:
    answer = endpoint("jobs").request("POST", "/jobs", body=json.dumps([JOB] * count))
    return [job["id"] for job in answer.json()]


def ids(endpoint: Start, listing: str) -> list[str]:
    answer = endpoint(listing).request("GET", f"/{listing}")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    return [job["id"] for job in answer.json()]


def test_an_empty_list_is_an_empty_array(endpoint: Start, store: Redis) -> None:
    for listing in ("completed_jobs", "incomplete_jobs", "inprogress_jobs", "failed_jobs", "cancelled_jobs"):
        assert ids(endpoint, listing) == []
        assert endpoint(listing).request("GET", f"/{listing}?limit=5").json() == []


def test_a_whole_list_is_read_in_pieces_and_has_every_job_once(endpoint: Start, store: Redis) -> None:
    submitted = submit(endpoint, 1000) + submit(endpoint, 501)
    assert ids(endpoint, "incomplete_jobs") == submitted


def submit_long(endpoint: Start, count: int) -> list[str]:
    """Submit jobs of 4 KB each."""
    batches = [[{"start": "x" * 4096, "end": n}] * 200 for n in range(count // 200)]
    answers = [endpoint("jobs").request("POST", "/jobs", body=json.dumps(batch)) for batch in batches]
    return [job["id"] for answer in answers for job in answer.json()]


def test_a_long_list_is_streamed(endpoint: Start, store: Redis) -> None:
    submitted = submit_long(endpoint, 1000)
    answer = endpoint("incomplete_jobs").request("GET", "/incomplete_jobs")
    assert len(answer.data) > MAX_HELD_BYTES
    assert "Content-Length" not in answer.headers
    assert [job["id"] for job in answer.json()] == submitted
    head = endpoint("incomplete_jobs").request("HEAD", "/incomplete_jobs")
    assert (head.status, head.data) == (200, b"")


def test_a_long_list_that_redis_cuts_short_is_seen_to_be_cut(endpoint: Start, store: Redis) -> None:
    submit_long(endpoint, 4000)
    answer = endpoint("incomplete_jobs").request("GET", "/incomplete_jobs", preload_content=False)
    answer.read(1000)
    store.kill()
    try:
        with pytest.raises(urllib3.exceptions.ProtocolError):
            answer.read()
    finally:
        answer.close()
        store.start()


def test_each_list_has_the_jobs_of_its_status(endpoint: Start, start: Start, store: Redis) -> None:
    worker = start("worker", JOB_SECONDS="0", WORKER_DRAIN_SECONDS="0").ready()
    done, cancelled, waiting = submit(endpoint, 3)
    worker.deliver(done)
    assert endpoint("cancel_job").request("POST", f"/cancel_job?job_id={cancelled}").status == 200
    assert ids(endpoint, "completed_jobs") == [done]
    assert ids(endpoint, "cancelled_jobs") == [cancelled]
    assert ids(endpoint, "failed_jobs") == ids(endpoint, "inprogress_jobs") == []
    assert ids(endpoint, "incomplete_jobs") == [cancelled, waiting], "every job that is not complete"


def test_pages_follow_their_links(endpoint: Start, store: Redis) -> None:
    submitted = submit(endpoint, 25)
    path, seen, pages = "/incomplete_jobs?limit=10", [], 0
    while path:
        answer = endpoint("incomplete_jobs").request("GET", path)
        seen += [job["id"] for job in answer.json()]
        pages += 1
        link = re.fullmatch(r'<(\S+)>; rel="next"', answer.headers.get("Link", ""))
        path = link and link[1]
    assert (seen, pages) == (submitted, 3)


def test_a_page_that_is_exactly_full_is_the_last(endpoint: Start, store: Redis) -> None:
    submit(endpoint, 10)
    answer = endpoint("incomplete_jobs").request("GET", "/incomplete_jobs?limit=10")
    assert len(answer.json()) == 10
    assert "Link" not in answer.headers


def test_a_page_begins_after_its_cursor_though_jobs_came_and_went(endpoint: Start, start: Start, store: Redis) -> None:
    worker = start("worker", JOB_SECONDS="0", WORKER_DRAIN_SECONDS="0").ready()
    submitted = submit(endpoint, 4)
    link = endpoint("incomplete_jobs").request("GET", "/incomplete_jobs?limit=2").headers["Link"]
    worker.deliver(submitted[0])
    worker.deliver(submitted[3])
    (later,) = submit(endpoint, 1)
    following = endpoint("incomplete_jobs").request("GET", link.split(">")[0][1:]).json()
    assert [job["id"] for job in endpoint("completed_jobs").request("GET").json()] == [submitted[0], submitted[3]]
    assert [job["id"] for job in following] == [submitted[2], later]


def test_a_record_in_a_list_is_the_record_of_its_status(endpoint: Start, store: Redis) -> None:
    submit(endpoint, 1)
    (listed,) = endpoint("incomplete_jobs").request("GET").json()
    assert endpoint("jobs_status").request("GET", f"/job_status?job_id={listed['id']}").json() == listed


def test_head_answers_without_a_body(endpoint: Start, store: Redis) -> None:
    answer = endpoint("completed_jobs").request("HEAD", "/completed_jobs")
    assert (answer.status, answer.data) == (200, b"")
