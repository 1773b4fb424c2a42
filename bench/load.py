"""The load generator: keeps a number of HTTP connections busy, the same for every system.

Each connection sends its next request as soon as it has the answer to the one before (a closed loop). It is bare
sockets and one selector in a process that does nothing else meanwhile, so that a request costs little of the machine
that it shares with the system: some 25 microseconds, and the same rates as with wrk.
"""

import http.client
import json
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from itertools import cycle, islice, takewhile
from typing import Any, NamedTuple

from bench import HOST

ANSWER_SECONDS = 300
RECEIVE_BYTES = 256 * 1024


class Result(NamedTuple):
    """What came of a load."""

    began_at: float
    """When the first request was sent, by `time.monotonic`."""
    seconds: float
    """From then to the last answer."""
    latencies: list[float]
    """Of each request, in seconds, ascending."""
    bodies: list[bytes]
    """Of the answers whose status was 2xx."""

    @property
    def rate(self) -> float:
        """Return the answers per second whose status was 2xx."""
        return len(self.bodies) / self.seconds

    @property
    def refused(self) -> int:
        """Return how many requests got another answer, or none."""
        return len(self.latencies) - len(self.bodies)

    def percentile(self, percent: float) -> float:
        """Return the latency in seconds that so many percent of the requests do not exceed."""
        return self.latencies[int((len(self.latencies) - 1) * percent / 100)]

    def ids(self) -> list[str]:
        """Return the ids of the jobs in the answers, batches included."""
        answers = map(json.loads, self.bodies)
        return [job["id"] for answer in answers for job in (answer if isinstance(answer, list) else [answer])]


def post(path: str, content: Any) -> bytes:
    """Return a POST request with JSON."""
    body = json.dumps(content)
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def get(path: str) -> bytes:
    """Return a GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


def for_seconds(seconds: float, port: int, requests: Sequence[bytes], connections: int) -> Result:
    """Send the requests in turn, over and over, for so long."""
    ends_at = time.monotonic() + seconds
    return _send(port, takewhile(lambda _: time.monotonic() < ends_at, cycle(requests)), connections)


def so_many(count: int, port: int, requests: Sequence[bytes], connections: int) -> Result:
    """Send the requests in turn, over and over, so many in all."""
    return _send(port, islice(cycle(requests), count), min(connections, count))


def download(port: int, path: str) -> tuple[float, bytes, str]:
    """Get what may be large. Return the seconds that it took, the body and the Link header.

    Raises:
        RuntimeError: the answer is another than 200.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_SECONDS)
    began_at = time.monotonic()
    connection.request("GET", path)
    answer = connection.getresponse()
    pieces = []
    while piece := answer.read1(RECEIVE_BYTES):
        pieces.append(piece)
    seconds = time.monotonic() - began_at
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"GET {path} answered {answer.status}")
    return seconds, b"".join(pieces), answer.headers.get("Link", "")


def _send(port: int, requests: Iterator[bytes], connections: int) -> Result:
    latencies, bodies = [], []
    with selectors.DefaultSelector() as selector:
        open_ones = [_Connection(port, selector) for _ in range(connections)]
        began_at = time.monotonic()
        for connection in open_ones:
            connection.send(next(requests))
        busy = connections
        while busy:
            for key, _ in selector.select(ANSWER_SECONDS) or _timed_out():
                connection = key.data
                if answer := connection.receive():
                    status, body = answer
                    latencies.append(time.monotonic() - connection.sent_at)
                    if 200 <= status < 300:
                        bodies.append(body)
                    if request := next(requests, None):
                        connection.send(request)
                    else:
                        busy -= 1
        seconds = time.monotonic() - began_at
        for connection in open_ones:
            connection.close()
    return Result(began_at, seconds, sorted(latencies), bodies)


class _Connection:
    def __init__(self, port: int, selector: selectors.BaseSelector) -> None:
        self.sent_at = 0.0
        self._port = port
        self._selector = selector
        self._received = b""
        self._socket: socket.socket | None = None
        self._open()

    def send(self, request: bytes) -> None:
        self.sent_at = time.monotonic()
        self._open().sendall(request)

    def receive(self) -> tuple[int, bytes] | None:
        """Return the status and the body of the answer once all of it is there; 0 when none came.

        An answer must say its length.
        """
        received = self._open().recv(RECEIVE_BYTES)
        self._received += received
        head, end, body = self._received.partition(b"\r\n\r\n")
        head = head.lower()
        length = head.find(b"\r\ncontent-length:") + 17
        if received and (not end or len(body) < int(head[length:].split(b"\r\n", 1)[0])):
            return None
        self._received = b""
        if not received or b"\r\nconnection: close" in head:
            self.close()
        return int(head[9:12] or 0), body

    def close(self) -> None:
        if self._socket:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def _open(self) -> socket.socket:
        if not self._socket:
            self._socket = socket.create_connection((HOST, self._port), timeout=ANSWER_SECONDS)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(self._socket, selectors.EVENT_READ, self)
        return self._socket


def _timed_out() -> Any:
    raise TimeoutError(f"no answer within {ANSWER_SECONDS} s")
