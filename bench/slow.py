"""A proxy that holds each piece of data for half a millisecond, in both directions: `python -m bench.slow PORT`.

It listens from the start, and passes everything on to the port that it reads from its standard input.
"""

import selectors
import socket
import sys
import time
from collections import deque
from contextlib import suppress

from bench import HOST

DELAY_SECONDS = 0.0005
RECEIVE_BYTES = 256 * 1024


def main() -> None:
    """Pass on until killed."""
    listener = socket.create_server((HOST, int(sys.argv[1])), backlog=1000)
    to_port = int(sys.stdin.readline())
    selector = selectors.SelectSelector()  # the one whose time-outs are not rounded to milliseconds
    selector.register(listener, selectors.EVENT_READ)
    on_the_way: deque[tuple[float, socket.socket, bytes]] = deque()
    while True:
        wait_s = max(0, on_the_way[0][0] - time.monotonic()) if on_the_way else None
        for key, _ in selector.select(wait_s):
            if key.fileobj is listener:
                _connect(listener.accept()[0], to_port, selector)
                continue
            sender, receiver = key.data
            received = _receive(sender)
            if not received:
                selector.unregister(sender)
            on_the_way.append((time.monotonic() + DELAY_SECONDS, receiver, received))
        while on_the_way and on_the_way[0][0] <= time.monotonic():
            _, receiver, received = on_the_way.popleft()
            _deliver(receiver, received)


def _connect(client: socket.socket, to_port: int, selector: selectors.BaseSelector) -> None:
    server = socket.create_connection((HOST, to_port))
    for ends in ((client, server), (server, client)):
        ends[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(ends[0], selectors.EVENT_READ, ends)


def _receive(sender: socket.socket) -> bytes:
    """Return what has come; nothing when the connection has ended."""
    try:
        return sender.recv(RECEIVE_BYTES)
    except OSError:
        return b""


def _deliver(receiver: socket.socket, received: bytes) -> None:
    """Pass on what has come, or the end of the connection, unless the receiver is gone."""
    with suppress(OSError):
        if received:
            receiver.sendall(received)
        else:
            receiver.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main()
