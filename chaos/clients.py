"""The clients, and the book in which they note what they asked for and what they were told."""

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import urllib3

from chaos.job_kinds import kind_of
from knative_jobs.runtime.settings import DEFAULT_KIND

CLIENTS = 8
TURNS_PER_SECOND = 1.6
"""Of one client, when nothing makes it wait."""
ANSWER_SECONDS = 5
PATIENCE_SECONDS = 60
"""How long a client repeats a request that has an idempotency key."""
LARGEST_BATCH = 30

LONG_WORK = "steps 1"
WORK = {
    "quick": 880,
    "slow 0.5": 10,
    "slow 2.5": 6,
    LONG_WORK: 4,
    "parts 1": 20,
    "raise-once": 30,
    "raise": 10,
    "retry": 20,
    "fail": 20,
}
"""What the jobs are to do, see work.py, with how many of a thousand."""


@dataclass
class Submission:
    """One job or one batch."""

    starts: list[str]
    batch: bool
    first_end: int
    """`end` of its first job. Each job of a run has an `end` of its own, so that it is known in the store."""
    key: str = ""
    answers: list[list[str]] = field(default_factory=list)
    """The ids in each 202 that it got."""
    refused: bool = False
    """The system said that it does not take it."""


@dataclass
class Book:
    """What all clients have noted. Only single items are added, so their threads need no lock."""

    submissions: list[Submission] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    """The jobs whose cancellation got a 200."""
    retried: set[str] = field(default_factory=set)
    """The jobs that somebody tried to have done once more."""
    statuses: list[int] = field(default_factory=list)
    """Of all answers; 0 for none."""
    undocumented: list[str] = field(default_factory=list)
    """Answers that the API does not have."""

    def acknowledged(self) -> Iterator[str]:
        """Yield the ids of all jobs that a client was told of."""
        for submission in list(self.submissions):
            for ids in submission.answers[:1]:
                yield from ids


def _job(start: str, end: int) -> dict[str, Any]:
    kind = kind_of(end)
    return {"start": start, "end": end} | ({} if kind == DEFAULT_KIND else {"kind": kind})


class Client(threading.Thread):
    """Submits and steers jobs until it is stopped; a submission with a key is repeated until there is an answer."""

    def __init__(self, number: int, seed: int, url: str, book: Book, over: threading.Event) -> None:
        super().__init__()
        self._dice = random.Random(f"{seed} client {number}")  # noqa: S311
        self._next_end = number * 1_000_000
        self._url = url
        self._http = urllib3.PoolManager(timeout=ANSWER_SECONDS, retries=False)
        self._book = book
        self._over = over
        self._own: list[str] = []
        """Its jobs that are not done at once, so that there may be something to steer."""

    def run(self) -> None:
        """Take turns."""
        turns = {self._submit: 90, self._cancel: 6, self._retry: 4}
        while not self._over.wait(self._dice.expovariate(TURNS_PER_SECOND)):
            self._dice.choices(list(turns), list(turns.values()))[0]()

    def _submit(self) -> None:
        batch = self._dice.random() < 0.3
        size = self._dice.randint(1, LARGEST_BATCH) if batch else 1
        submission = self._note(self._dice.choices(list(WORK), list(WORK.values()), k=size), batch)
        if self._dice.random() < 0.5:
            self._send(submission)
            return
        submission.key = f"key {submission.first_end}"
        for _ in range(PATIENCE_SECONDS):
            if self._send(submission):
                break
            time.sleep(1)
        if self._dice.random() < 0.1:
            self._send(submission)

    def _note(self, starts: list[str], batch: bool = False) -> Submission:
        submission = Submission(starts, batch, self._next_end)
        self._next_end += len(starts)
        self._book.submissions.append(submission)
        return submission

    def _send(self, submission: Submission) -> bool:
        """Send it, and return whether there has been an answer with its jobs."""
        jobs = [_job(start, submission.first_end + i) for i, start in enumerate(submission.starts)]
        headers = {"Idempotency-Key": submission.key} if submission.key else {}
        status, answer = self._post("/jobs", body=json.dumps(jobs if submission.batch else jobs[0]), headers=headers)
        if status == 202:
            saved = answer if submission.batch else [answer]
            submission.answers.append([job["id"] for job in saved])
            self._own += [job["id"] for job in saved if job["start"] != "quick"]
        elif status == 429:
            submission.refused = not submission.key
        elif status not in (0, 503):  # either may come after the jobs were saved
            self._book.undocumented.append(f"{status} to a submission: {answer}")
        return bool(submission.answers)

    def _cancel(self) -> None:
        """Submit a job that takes some time, and cancel it."""
        submission = self._note([LONG_WORK])
        if self._send(submission):
            ((job_id,),) = submission.answers
            status, answer = self._post(f"/cancel_job?job_id={job_id}")
            if status == 200:
                self._book.cancelled.add(job_id)
            elif status not in (0, 202, 409, 503):
                self._book.undocumented.append(f"{status} to a cancellation: {answer}")

    def _retry(self) -> None:
        if self._own:
            job_id = self._dice.choice(self._own[-50:])
            self._book.retried.add(job_id)
            status, answer = self._post(f"/retry_job?job_id={job_id}")
            if status not in (0, 202, 409, 503):
                self._book.undocumented.append(f"{status} to a retry: {answer}")

    def _post(self, path: str, **given: Any) -> tuple[int, Any]:
        """Return the status and the content of the answer; 0 and nothing when there is none."""
        status, content = 0, None
        with suppress(urllib3.exceptions.HTTPError, ValueError):
            answer = self._http.request("POST", self._url + path, **given)
            content = answer.json()
            status = answer.status
        self._book.statuses.append(status)
        return status, content
