"""Calls of the HTTP API, as its OpenAPI document describes it."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import httpx
from httpx_sse import ServerSentEvent, connect_sse

from kn_jobs import address

Job = dict[str, Any]
TIMEOUT_SECONDS = 90
"""A function may come from zero, and a request may wait for the end of a job."""


class ApiError(click.ClickException):
    """The API refused a request. The message is the `detail` of its answer."""


class NotFoundError(ApiError):
    """There is no such job."""


def call(method: str, path: str, **given: Any) -> httpx.Response:
    """Return the answer to a request.

    Args:
        method: GET or POST.
        path: one of the OpenAPI document.
        given: as httpx takes it: `params`, `content`, `headers`.

    Raises:
        ApiError: it is an error, or nothing answers.
    """
    url = _routes().get(path)
    if not url:
        raise ApiError(f"The API at {address.base()} has no {path}; it may be an older one.")
    return _request(method, url, **given)


def jobs(params: dict[str, str], most: int) -> list[Job]:
    """Return the newest jobs that the parameters ask for, up to `most`."""
    found: list[Job] = []
    answer = call("GET", "/jobs", params=params | {"limit": str(min(most, 1000))})
    while True:
        found += answer.json()
        following = answer.links.get("next", {}).get("url")
        if len(found) >= most or not following:
            return found[:most]
        answer = _request("GET", str(answer.url.join(following)))


def records(job_id: str) -> Iterator[Job]:
    """Yield the record of a job now, and whenever it has changed, until the job has ended."""
    for event in _events("/job_events", {"job_id": job_id}):
        yield event.json()


def log(job_id: str, attempt: str) -> Iterator[str]:
    """Yield what the work of a job says, until the job has ended."""
    for event in _events("/job_log", {"job_id": job_id, "attempt": attempt, "follow": "1"}):
        if event.event != "end":
            yield event.data


def _events(path: str, params: dict[str, str]) -> Iterator[ServerSentEvent]:
    """Yield the events of a stream, and go on with another where one ends before its time."""
    last = ""
    while True:
        headers = {"Last-Event-ID": last} if last else {}
        try:
            with connect_sse(_client(), "GET", _routes()[path], params=params, headers=headers) as source:
                _check(source.response)
                if source.response.status_code == httpx.codes.NO_CONTENT:
                    return
                for event in source.iter_sse():
                    if event.retry is None:  # the library takes this field alone for an event
                        last = event.id
                        yield event
        except httpx.RemoteProtocolError:  # the function was replaced while it answered
            continue
        except httpx.HTTPError as error:
            raise _no_answer(error) from error


def _request(method: str, url: str, **given: Any) -> httpx.Response:
    try:
        answer = _client().request(method, url, **given)
    except httpx.HTTPError as error:
        raise _no_answer(error) from error
    return _check(answer)


def _check(answer: httpx.Response) -> httpx.Response:
    if answer.status_code < httpx.codes.BAD_REQUEST:
        return answer
    answer.read()
    try:
        detail = str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"{answer.status_code} {answer.reason_phrase}: {answer.text[:200]}"
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        detail += " kn jobs sends the one in KNATIVE_JOBS_TOKEN, or in the file that KNATIVE_JOBS_TOKEN_FILE names."
    raise (NotFoundError if answer.status_code == httpx.codes.NOT_FOUND else ApiError)(detail)


def _no_answer(error: httpx.HTTPError) -> ApiError:
    return ApiError(f"{address.base()} does not answer: {error or type(error).__name__}.")


@cache
def _client() -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"} if (token := _token()) else {}
    return httpx.Client(headers=headers, timeout=TIMEOUT_SECONDS)


@cache
def _routes() -> dict[str, str]:
    described_at = f"{address.base()}/openapi.json"
    return address.routes(_request("GET", described_at).json(), described_at)


def dashboard() -> str:
    """Return the address of the dashboard."""
    return _routes()["/dashboard/overview"].removesuffix("/overview")


def _token() -> str:
    """Return the token of the environment, or of a file that it names. It is never an argument, which all can see."""
    if token := os.environ.get("KNATIVE_JOBS_TOKEN", ""):
        return token
    file = os.environ.get("KNATIVE_JOBS_TOKEN_FILE", "")
    try:
        return Path(file).read_text().strip() if file else ""
    except OSError as error:
        raise click.ClickException(f"KNATIVE_JOBS_TOKEN_FILE: {error}") from error
