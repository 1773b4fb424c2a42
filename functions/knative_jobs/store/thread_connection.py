"""The connection of a thread, which blocks."""

import threading
import time
from contextlib import suppress
from functools import cache
from typing import Any

import redis

from knative_jobs.store import confirmation
from knative_jobs.store.lua_scripts import Command
from knative_jobs.store.primary import (
    ANSWER_SECONDS,
    CHECK_SECONDS,
    NO_ANSWER,
    REFUSAL,
    ROLE,
    FromReplica,
    is_from_wrong_server,
    is_replica,
    pool,
)


class ThreadConnection(threading.local):
    """One connection for each thread. The book-keeping of a pool would double the cost of a call."""

    def __init__(self) -> None:
        self._pool = pool(redis, socket_timeout=ANSWER_SECONDS)
        self.connection: Any = self._pool.make_connection()
        self._check_at = 0.0

    def call(self, commands: list[Command], confirmed: bool) -> list[Any]:
        """Send the commands, and what confirms them, and return the replies. It connects if there is no connection."""
        now = time.monotonic()
        check = now >= self._check_at
        sent = [ROLE, *commands] if check else commands
        if confirmed:
            sent = [*sent, *confirmation.commands()]
        try:
            self.connection.connect()  # if it is not: sending would connect too, but ask no Sentinel
            self.connection.send_packed_command(self.connection.pack_commands(sent))
            replies = [self._reply() for _ in sent[confirmed:]]
            if confirmed:
                replies.append(self._reply(timeout=ANSWER_SECONDS + confirmation.seconds()))
        except REFUSAL as error:  # as the connection was made
            self.connection.disconnect()
            raise redis.exceptions.ConnectionError(f"no connection: {error}") from error
        except NO_ANSWER:
            self.connection.disconnect()
            raise
        if check:
            self._check_at = now + CHECK_SECONDS
            if is_replica(replies.pop(0)):
                replies = FromReplica(replies)
        if isinstance(replies, FromReplica) or any(map(is_from_wrong_server, replies)):
            self.connection.disconnect()
            self._check_at = 0
        return replies

    def end(self, commands: list[Command]) -> None:
        """Send the last commands to this server, and close the connection: there may be another primary."""
        with suppress(*NO_ANSWER):
            for command in commands:
                self.connection.send_packed_command(self.connection.pack_command(*command))
                self._reply()
        self.connection.disconnect()

    def _reply(self, **how: float) -> Any:
        try:
            return self.connection.read_response(**how)
        except REFUSAL as error:
            return error


@cache
def own() -> ThreadConnection:
    """Return the connection of this thread."""
    return ThreadConnection()
