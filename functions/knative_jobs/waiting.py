"""Waiting for something without holding a thread.

Handlers and what they call are plain functions. The server of the image runs each request as a greenlet beside its
event loop (`run`); what has to wait hands an awaitable to the loop (`wait_for`), so the request is put aside and the
others go on. Under any other server each request has a thread, which then waits for a loop of this process's own.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")
_in_background: set[asyncio.Task[Any]] = set()


class _Request(greenlet):  # type: ignore[misc]
    """A request. Its parent is the loop's side, which awaits what the request asks for."""


async def run(function: Callable[..., T], *args: Any) -> T:
    """Call a function that may `wait_for` something, and return what it returns."""
    request = _Request(function)
    wanted = request.switch(*args)
    while not request.dead:
        try:
            came = await wanted
        except BaseException as error:  # the end of this task too: the function has something to close
            wanted = request.throw(error)
        else:
            wanted = request.switch(came)
    returned: T = wanted
    return returned


def on_loop() -> bool:
    """Tell whether this is a request that shares its thread with all others, and so must not block."""
    return isinstance(getcurrent(), _Request)


def wait_for(awaitable: Coroutine[Any, Any, T]) -> T:
    """Return what the awaitable comes to, or raise what it raises."""
    request = getcurrent()
    if not isinstance(request, _Request):
        return asyncio.run_coroutine_threadsafe(awaitable, _own_loop()).result()
    assert request.parent is not None  # noqa: S101
    came: T = request.parent.switch(awaitable)
    return came


def in_background(coroutine: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
    """Have the running loop do it. The task is kept until it is done, which the loop alone does not do."""
    task = asyncio.get_running_loop().create_task(coroutine)
    _in_background.add(task)
    task.add_done_callback(_in_background.discard)
    return task


@cache
def _own_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="waiting").start()
    return loop
