"""Running Lua scripts in Redis, one round trip at a time.

A request on the server's event loop shares one connection with all others of its process, but for calls that are
confirmed, which have some of their own. Any other thread has a connection of its own, which blocks.

A call is repeated once when its connection breaks, or leads to an old primary; the scripts are written so that a
repetition does no harm.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from knative_jobs.runtime import greenlets
from knative_jobs.runtime.errors import UnavailableError
from knative_jobs.store import confirmation
from knative_jobs.store.confirming_connections import confirming
from knative_jobs.store.lua_scripts import TOUCH, Command, evalsha, load
from knative_jobs.store.primary import NO_ANSWER, REFUSAL, FromReplica, is_from_wrong_server
from knative_jobs.store.shared_connection import shared
from knative_jobs.store.thread_connection import own

REFUSE_SECONDS = 1
"""After a call that got no answer in time twice, so long all others fail at once: none shall wait in vain."""


def run(name: str, *args: Any) -> Any:
    """Run the script `lua/NAME.lua` with these arguments, and return its reply.

    Raises:
        UnavailableError: Redis is away, or takes no writes; an endpoint knows so in under three seconds.
    """
    return _run_all([(name, *args)])[0]


def run_all(
    calls: Sequence[Command],
    tries: int = 1,
    *,
    confirmed: bool = False,
    undo: Callable[[list[Any]], list[Command]] | None = None,
) -> list[Any]:
    """Run scripts, each given as its name and arguments, in one round trip.

    Args:
        calls: the scripts.
        tries: how often to try while Redis is away. There is a second between two, less at first; only a thread that
            may block can wait for that.
        confirmed: whether to return only once as many replicas have what was written as the settings say.
        undo: gets the replies, and returns scripts that take back what is not confirmed. They run on the same server;
            only a thread that may block can have that.

    Raises:
        UnavailableError: as `run`.
        UnconfirmedError: too few replicas have what was written.
    """
    patience = Retry(ExponentialBackoff(base=0.05, cap=1), tries - 1, supported_errors=(UnavailableError,))
    replies: list[Any] = patience.call_with_retry(lambda: _run_all(calls, confirmed, undo), lambda _: None)
    return replies


def _run_all(
    calls: Sequence[Command], confirmed: bool = False, undo: Callable[[list[Any]], list[Command]] | None = None
) -> list[Any]:
    confirmed = confirmed and confirmation.is_wanted()
    commands = [evalsha(name, *args) for name, *args in calls]
    try:
        replies = _call(commands, confirmed)
        for i, reply in enumerate(replies):
            if isinstance(reply, redis.exceptions.NoScriptError):
                name, again = (calls[i][0], commands[i : i + 1]) if i < len(calls) else (TOUCH, [])
                _, *more = _call([load(name), *again], confirmed)
                replies[i : i + len(again)] = more[: len(again)]
                replies[len(calls) :] = more[len(again) :]
    except NO_ANSWER as error:
        raise UnavailableError("The store does not answer. Nothing was lost; try again shortly.") from error
    replies, waited = replies[: len(calls)], replies[len(calls) :]
    for reply in replies:
        if isinstance(reply, REFUSAL):
            refused = isinstance(reply, redis.exceptions.OutOfMemoryError) or str(reply).startswith("MISCONF")
            if refused or is_from_wrong_server(reply):
                raise UnavailableError("The store takes no writes now. Nothing was changed; try later.") from reply
            raise reply
    if confirmed and not confirmation.is_confirmed(waited):
        if not greenlets.on_loop():
            own().end(
                [
                    command
                    for name, *args in (undo(replies) if undo else ())
                    for command in (load(name), evalsha(name, *args))
                ]
            )
        raise confirmation.unconfirmed(waited, replies)
    return replies


_refused_until = 0.0


def _call(commands: list[Command], confirmed: bool = False) -> list[Any]:
    """Return the replies, an error among them as it is. They are sent once more if the first try finds no primary."""
    global _refused_until
    if time.monotonic() < _refused_until:
        raise redis.exceptions.ConnectionError("it did not answer a moment ago")
    try:
        try:
            replies = _send(commands, confirmed)
        except NO_ANSWER:
            if time.monotonic() < _refused_until:  # another call has tried twice meanwhile
                raise
            return _send(commands, confirmed)
        if isinstance(replies, FromReplica) or any(map(is_from_wrong_server, replies)):
            return _send(commands, confirmed)
        return replies
    except redis.exceptions.TimeoutError:
        _refused_until = time.monotonic() + REFUSE_SECONDS
        raise


def _send(commands: list[Command], confirmed: bool) -> list[Any]:
    if not greenlets.on_loop():
        return own().call(commands, confirmed)
    return greenlets.wait_for(confirming().call(commands) if confirmed else shared().call(commands))
