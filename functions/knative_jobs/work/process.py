"""The process that does the user's work: `python -m knative_jobs.work.process SOCKET PIPE MARK`.

It is apart from the worker that holds the claim, so that the heartbeat goes on whatever the work does (holds the GIL,
blocks in C), an attempt can be ended when its time is over, and work that takes its process down does not take the
worker with it. `work.messages` says what the two tell each other over the socket, `work.output` how what the work says
gets to the worker. The pipe is open for as long as the worker lives. With WORKER_CONCURRENCY, `async def` work is asked
for several attempts at once: `event_loop` says how.
"""

import contextlib
import inspect
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from typing import NoReturn

from knative_jobs.runtime.settings import settings
from knative_jobs.work import one_attempt, output
from knative_jobs.work.api import Work, find
from knative_jobs.work.messages import Channel


def main() -> None:
    """Serve one worker until it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker to act upon
    messages, alive, mark = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    for descriptor in (messages, alive):
        os.set_inheritable(descriptor, False)  # not for the programs that the work starts
    threading.Thread(target=_die_with_worker, args=[alive], daemon=True).start()
    worker = Channel(socket.socket(fileno=messages))
    _log_to_worker(mark)
    try:
        _limit_memory(settings().work_memory_mib)
        work = find(settings().job_work, settings().job_seconds)
    except BaseException as error:
        traceback.print_exc()
        worker.send("unusable", f"{type(error).__name__}: {error}")
        return
    if settings().worker_concurrency > 1 and _is_async(work):
        from knative_jobs.work import event_loop

        worker.send("ready", "several")
        event_loop.serve(worker, work, mark)
    worker.send("ready")
    while True:
        if of_one := one_attempt.received(worker, worker.receive()):
            handle, job = of_one
            output.reopen()
            word, details = one_attempt.do(work, job)
            handle.close()
            output.flush()
            worker.send(word, job.id, job.attempt, *details)


def _is_async(work: Work) -> bool:
    return inspect.iscoroutinefunction(work) or inspect.iscoroutinefunction(getattr(work, "__call__", None))  # noqa: B004


def _limit_memory(mib: int) -> None:
    """Limit the memory that this process, and each that it starts, can have.

    RLIMIT_DATA counts what a process may write to and shares with nobody, which is close to what it uses. RLIMIT_AS
    would count the address space too that libraries (allocators, numpy, CUDA) reserve and never touch. Linux alone
    enforces either.
    """
    if mib:
        import resource

        most, (_, hard) = mib * 1024 * 1024, resource.getrlimit(resource.RLIMIT_DATA)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _log_to_worker(mark: str) -> None:
    """Have what is logged or printed go to the worker, each line at once and as a whole."""
    logging.basicConfig(level=logging.INFO, handlers=[output.ToWorker(mark)])
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True, write_through=False)  # type: ignore[union-attr]


def _die_with_worker(pipe: int) -> NoReturn:
    """Wait until the worker is gone, and end this whole process group."""
    os.read(pipe, 1)
    os.killpg(0, signal.SIGKILL)
    raise AssertionError


if __name__ == "__main__":
    with contextlib.suppress(EOFError, OSError):  # the worker is gone
        main()
