"""`async def` work of several attempts at once, in one process and on one event loop: WORKER_CONCURRENCY.

Once the process has said that it can do so (`["ready", "several"]`), the worker sends no messages over their socket but
file descriptors, each with one byte: a socket for the messages of one attempt. The process closes that socket when the
attempt has ended. When the worker closes it first, nobody waits for the attempt any more, and its task is cancelled.
"""

import asyncio
import sys
from typing import NoReturn

from knative_jobs.runtime.greenlets import in_background
from knative_jobs.work import one_attempt, output
from knative_jobs.work.api import Work
from knative_jobs.work.messages import Channel


def serve(worker: Channel, work: Work, mark: str) -> NoReturn:
    """Do the work of each attempt that the worker sends a socket for, until the worker is gone.

    Raises:
        EOFError, OSError: it is.
    """
    sys.stdout = sys.stderr = output.Printed(mark)
    asyncio.run(_serve(worker, work))
    raise EOFError


async def _serve(worker: Channel, work: Work) -> None:
    loop, gone = asyncio.get_running_loop(), asyncio.Event()

    def accept() -> None:
        try:
            channel = worker.receive_channel()
        except (EOFError, OSError):
            loop.remove_reader(worker.fileno())
            gone.set()
        else:
            in_background(_attempt(channel, work))

    loop.add_reader(worker.fileno(), accept)
    await gone.wait()


async def _attempt(channel: Channel, work: Work) -> None:
    """Do one attempt, and close its channel."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task  # noqa: S101
    try:
        of_one = one_attempt.received(channel, await _message(channel))
        if not of_one:
            return
        handle, job = of_one
        output.said_by.set((job.id, job.attempt, job.traceparent, job.kind))

        def look() -> None:
            handle.listen()
            if handle.abandoned:
                loop.remove_reader(channel.fileno())
                task.cancel()

        loop.add_reader(channel.fileno(), look)
        word, details = await one_attempt.do_on_loop(work, job)
        loop.remove_reader(channel.fileno())
        handle.close()
        if isinstance(sys.stdout, output.Printed):
            sys.stdout.end_line()
        if not handle.abandoned:
            channel.send(word, job.id, job.attempt, *details)
    except (EOFError, OSError):  # the worker has given the attempt up
        pass
    finally:
        loop.remove_reader(channel.fileno())
        channel.close()


async def _message(channel: Channel) -> list[object]:
    """Wait for a message."""
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(channel.fileno(), readable.set)
    try:
        while (message := channel.received()) is None:
            await readable.wait()
            readable.clear()
            channel.read(wait=False)
        return message
    finally:
        loop.remove_reader(channel.fileno())
