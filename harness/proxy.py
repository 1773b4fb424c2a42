"""A TCP proxy in front of Redis, whose connections can be slow, be cut, fall silent, and lose answers.

`python -m harness.proxy PORT DELAY_SECONDS` runs one in a process of its own, so that it takes no time from the process
that measures. It reads the port of Redis from its standard input.
"""

import asyncio
import selectors
import sys
import threading
from collections import deque
from typing import cast

HOST = "127.0.0.1"


class Proxy:
    """Listens on `port` from the start, and connects to `to_port` once that is set. It lives in a thread of its own.

    `to_port` may change at any time: new connections go to the new port, open ones stay where they are until they are
    cut.
    """

    def __init__(self, port: int = 0) -> None:
        """Listen on this port; 0: on any that is free."""
        self.to_port = 0
        self.delay_s: float = 0
        """By how much each piece of data is late, in both directions. Pieces that follow it are not held up."""
        self.replication_delay_s: float = 0
        """The same for what a primary sends to a replica, in the place of `delay_s`."""
        self.answers_to_lose = 0
        """So many of the next answers are lost: Redis has done what was asked, and the connection ends instead."""
        self.dropped = 0
        """How many pieces of data went nowhere: see `silence`."""
        self.silent: set[asyncio.BaseTransport] = set()
        """The ends that let nothing through. For the thread of the proxy only."""
        self.open: set[asyncio.BaseTransport] = set()
        """The ends of all connections. For the thread of the proxy only."""
        # Every other selector rounds time-outs up to milliseconds, and delays may be shorter than that.
        self.loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop(selectors.SelectSelector())
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        listening = self.loop.create_server(lambda: _End(self), HOST, port, backlog=1000)
        self._server = asyncio.run_coroutine_threadsafe(listening, self.loop).result()
        self.port: int = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Cut every connection, and take no more."""

        async def close() -> None:
            # Those that were accepted a moment ago are known to a task alone, which fails once the server is closed.
            self.loop.remove_reader(self._server.sockets[0].fileno())
            while self.open or len(asyncio.all_tasks()) > 1:
                self._cut()
                await asyncio.sleep(0)
            self._server.close()

        asyncio.run_coroutine_threadsafe(close(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def cut(self) -> None:
        """Cut every connection that is open."""
        self.loop.call_soon_threadsafe(self._cut)

    def silence(self) -> None:
        """Let nothing through any more on the connections that are open, and leave them open."""

        async def silence() -> None:
            self.silent |= self.open

        asyncio.run_coroutine_threadsafe(silence(), self.loop).result()

    def _cut(self) -> None:
        for end in list(self.open):
            cast(asyncio.Transport, end).abort()


class _End(asyncio.Protocol):
    """One end of a connection, the client's or Redis's. What it receives is written to the other end, late."""

    def __init__(self, proxy: Proxy, client: "_End | None" = None) -> None:
        self._proxy = proxy
        self._other = client
        self._is_redis = client is not None
        self._is_replica = False
        self._late: deque[bytes] = deque()
        """What has been received and is not written yet, oldest first. An empty piece is the end of the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._proxy.open.add(transport)
        if self._other and self._other.transport in self._proxy.silent:  # it fell silent while this end was connecting
            self._proxy.silent.add(transport)
        if not self._is_redis:
            self.transport.pause_reading()
            self._connecting = self._proxy.loop.create_task(self._connect())

    async def _connect(self) -> None:
        while not self._proxy.to_port:
            await asyncio.sleep(0.01)
        try:
            _, self._other = await self._proxy.loop.create_connection(
                lambda: _End(self._proxy, self), HOST, self._proxy.to_port
            )
        except OSError:
            self.transport.close()
            return
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self.transport in self._proxy.silent:
            self._proxy.dropped += 1
            return
        if not self._is_redis and b"PSYNC" in data:
            self._is_replica = True
        if self._is_redis and self._proxy.answers_to_lose > 0:
            self._proxy.answers_to_lose -= 1
            self.transport.close()
            self._write(b"")
            return
        self._write_late(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._proxy.open.discard(self.transport)
        self._proxy.silent.discard(self.transport)
        if not self._is_redis:
            self._connecting.cancel()
        self._write_late(b"")

    def pause_writing(self) -> None:
        """The receiver of this end is slow: take no more for it."""
        if self._other:
            self._other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._other:
            self._other.transport.resume_reading()

    def _write_late(self, data: bytes) -> None:
        self._late.append(data)
        to_replica = self._is_redis and self._other and self._other._is_replica
        delay_s = self._proxy.replication_delay_s if to_replica else self._proxy.delay_s
        # Not this very piece but the oldest is written then, so that pieces stay in order when `delay_s` is changed.
        self._proxy.loop.call_later(delay_s, lambda: self._write(self._late.popleft()))

    def _write(self, data: bytes) -> None:
        if not self._other or self._other.transport.is_closing():
            return
        if data:
            self._other.transport.write(data)
        else:
            self._other.transport.close()


def main() -> None:
    """Pass everything on until killed."""
    proxy = Proxy(int(sys.argv[1]))
    proxy.delay_s = float(sys.argv[2])
    proxy.to_port = int(sys.stdin.readline())
    threading.Event().wait()


if __name__ == "__main__":
    main()
