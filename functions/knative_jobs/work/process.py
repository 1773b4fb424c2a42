"""The process that does the user's work: `python -m knative_jobs.work.process FD`.

It is apart from the worker that holds the claim, so that the heartbeat goes on whatever the work does (holds the GIL,
blocks in C), an attempt can be ended when its time is over, and work that takes its process down does not take the
worker with it. Both sides talk over a socket in pickled tuples:

    to here     ("work", {id, attempt, start, end, traceparent})   ("cancel", id)
    from here   ("ready", "")  ("unusable", why)     at the start
                ("progress", fraction, message)
                ("complete", result as JSON)  ("error", error, delay or None)  ("failed", error)  ("cancelled", "")
"""

import contextlib
import json
import os
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from knative_jobs.runtime.settings import settings
from knative_jobs.work.api import Cancelled, Fail, Job, Retry, Work, find

MAX_RESULT_BYTES = 256 * 1024
_MAX_MESSAGE = 1000
_TRACEBACK_LINES = 12
_MAX_TRACEBACK = 2000


class _Worker:
    """The worker, over the socket, during one attempt."""

    def __init__(self, connection: "Connection[Any, Any]", job_id: str) -> None:
        self._connection = connection
        self._job_id = job_id
        self._cancel = False

    def report(self, fraction: float, message: str) -> None:
        self._connection.send(("progress", fraction, message))

    def cancel_requested(self) -> bool:
        while not self._cancel and self._connection.poll():
            self._cancel = self._connection.recv() == ("cancel", self._job_id)
        return self._cancel


def error_of(error: BaseException) -> dict[str, str]:
    """Describe an exception: its type, message and the last lines of its traceback, each bounded in size."""
    lines = "".join(traceback.format_exception(error)).rstrip().splitlines()[-_TRACEBACK_LINES:]
    return {
        "type": type(error).__name__[:_MAX_MESSAGE],
        "message": str(error)[:_MAX_MESSAGE],
        "traceback": "\n".join(lines)[-_MAX_TRACEBACK:],
    }


def do(work: Work, job: Job) -> tuple[Any, ...]:
    """Do the work of one attempt. Return its outcome, as the worker is told it."""
    try:
        result = work(job)
    except Cancelled:
        return "cancelled", ""
    except Retry as retry:
        return "error", error_of(retry), retry.after
    except Fail as fail:
        return "failed", error_of(fail)
    except (Exception, SystemExit) as error:
        return "error", error_of(error), None
    try:
        text = json.dumps(result, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        return "failed", {
            "type": type(error).__name__,
            "message": f"the result is no JSON value: {error}"[:_MAX_MESSAGE],
        }
    if len(text) > MAX_RESULT_BYTES:
        return "failed", {"type": "ValueError", "message": f"the result is over {MAX_RESULT_BYTES} bytes"}
    return "complete", text


def main() -> None:
    """Serve one worker until it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker to act upon
    threading.Thread(target=_die_with_worker, daemon=True).start()
    worker: Connection[Any, Any] = Connection(int(sys.argv[1]))
    try:
        work = find(settings().job_work, settings().job_seconds)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        worker.send(("unusable", f"{type(error).__name__}: {error}"))
        return
    worker.send(("ready", ""))
    while True:
        kind, job = worker.recv()
        if kind == "work":
            outcome = do(work, Job(_Worker(worker, job["id"]), **job))
            sys.stdout.flush()
            worker.send(outcome)


def _die_with_worker() -> NoReturn:
    """Wait for the end of standard input, which the worker holds open, and end this whole process group."""
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)
    raise AssertionError


if __name__ == "__main__":
    with contextlib.suppress(EOFError, OSError):  # the worker is gone
        main()
