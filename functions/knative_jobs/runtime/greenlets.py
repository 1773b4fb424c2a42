"""Waiting without holding a thread: plain functions that wait for awaitables of an event loop.

Handlers and what they call are plain functions. The server of the image runs each request as a greenlet beside its
event loop (`run`). Code that has to wait hands an awaitable to the loop (`wait_for`): the greenlet is suspended, and
other requests continue. Under any other server each request has a thread; it then waits for an event loop that this
module runs in a thread of its own.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from functools import cache, partial
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")
_in_background: set[asyncio.Task[Any]] = set()
_started: set[Future[Any]] = set()


class _Request(greenlet):  # type: ignore[misc]
    """A request, or a function that `start` called. Its parent awaits, on the loop, what this greenlet waits for."""


async def run(function: Callable[..., T], *args: Any) -> T:
    """Call a function that may `wait_for` something, and return what it returns."""
    request = _Request(function)
    returned: T = await _go_on(request, request.switch(*args))
    return returned


def start(function: Callable[..., T], *args: Any) -> Future[T]:
    """Call a function that may `wait_for` something, without waiting for its end. The process waits for it as it ends.

    On the loop, the function runs synchronously until its first wait.
    """
    done: Future[T] = Future()
    _started.add(done)
    done.add_done_callback(_started.discard)
    begin = partial(_begin, done, function, *args)
    begin() if on_loop() else _own_loop().call_soon_threadsafe(begin)
    return done


async def finish() -> None:
    """Wait until all that was started has ended."""
    # A copy, for what has a loop of its own ends meanwhile.
    while open_ := [asyncio.wrap_future(done) for done in tuple(_started)]:
        await asyncio.wait(open_)


def _begin(done: Future[T], function: Callable[..., T], *args: Any) -> None:
    def call() -> None:
        try:
            done.set_result(function(*args))
        except BaseException as error:
            done.set_exception(error)

    here, beside = getcurrent(), _Request(call)
    wanted = beside.switch()
    if not beside.dead:
        if isinstance(here, _Request):
            beside.parent = here.parent  # until now it was the request, so that this returns there
        in_background(_go_on(beside, wanted))


async def _go_on(request: _Request, wanted: Any) -> Any:
    """Await what a request asks for, until it has ended, and return what it returns."""
    while not request.dead:
        try:
            came = await wanted
        except BaseException as error:  # the end of this task too: the function has something to close
            wanted = request.throw(error)
        else:
            wanted = request.switch(came)
    return wanted


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
    from multiprocessing.util import Finalize

    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="waiting").start()
    Finalize(None, _wait_for_started, exitpriority=1)  # see `tracing`: no other exit handler runs everywhere
    return loop


def _wait_for_started() -> None:
    while open_ := tuple(_started):  # what ends may have started something else
        wait(open_)
