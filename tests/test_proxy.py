"""The proxy of the benchmark and of the chaos run, between a client and a server of this process."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from harness.proxy import HOST, Proxy

LARGE = bytes(range(256)) * 40_000


class Connected:
    """A client and a server with the proxy between them. A connection that neither answers nor ends fails the test."""

    def __init__(self, proxy: Proxy) -> None:
        with socket.create_server((HOST, 0)) as listener:
            proxy.to_port = listener.getsockname()[1]
            self.client = socket.create_connection((HOST, proxy.port), timeout=30)
            self.server, _ = listener.accept()
        self.server.settimeout(30)


def received(end: socket.socket, length: int) -> bytes:
    """What has come, once so much has or the connection has ended."""
    pieces = b""
    while len(pieces) < length and (piece := end.recv(65536)):
        pieces += piece
    return pieces


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with closing(Proxy()) as proxy:
        yield proxy


@pytest.fixture
def connected(proxy: Proxy) -> Iterator[Connected]:
    connected = Connected(proxy)
    with closing(connected.client), closing(connected.server):
        yield connected


def test_what_is_sent_arrives_in_both_directions(connected):
    connected.client.sendall(b"request")
    assert received(connected.server, 7) == b"request"
    connected.server.sendall(b"answer")
    assert received(connected.client, 6) == b"answer"


def test_a_client_that_comes_before_the_address_of_redis_is_known_waits_for_it(proxy):
    with socket.create_connection((HOST, proxy.port), timeout=30) as client:
        client.sendall(b"early")
        with socket.create_server((HOST, 0)) as listener:
            proxy.to_port = listener.getsockname()[1]
            with listener.accept()[0] as server:
                assert received(server, 5) == b"early"


def test_the_end_of_a_connection_follows_what_was_sent_before_it(proxy, connected):
    proxy.delay_s = 0.05
    connected.server.sendall(b"last words")
    connected.server.close()
    assert received(connected.client, 100) == b"last words"


def test_a_receiver_that_pauses_gets_everything_later_and_holds_up_nobody_else(proxy, connected):
    other = Connected(proxy)
    connected.server.setblocking(False)
    sent = 0
    while sent < len(LARGE):  # until all buffers on the way are full, or all of it is in them
        try:
            sent += connected.server.send(LARGE[sent:])
        except BlockingIOError:
            break
    with closing(other.client), closing(other.server):
        other.client.sendall(b"request")
        assert received(other.server, 7) == b"request"
    assert received(connected.client, sent) == LARGE[:sent]


def test_pieces_are_late_by_the_delay_and_do_not_wait_for_each_other(proxy, connected):
    proxy.delay_s = 1
    began_at = time.monotonic()
    for _ in range(30):
        connected.client.sendall(b".")
        time.sleep(0.01)
    first = received(connected.server, 1)  # or more, on a machine that is busy
    assert time.monotonic() - began_at >= 1
    assert first + received(connected.server, 30 - len(first)) == 30 * b"."
    # One after another they would take 30 s; a machine that is busy has room below that.
    assert time.monotonic() - began_at < 20


def test_pieces_stay_in_order_when_the_delay_becomes_shorter(proxy, connected):
    proxy.delay_s = 0.3
    connected.client.sendall(b"first ")
    time.sleep(0.1)
    proxy.delay_s = 0
    connected.client.sendall(b"second")
    assert received(connected.server, 12) == b"first second"


def test_a_connection_that_is_cut_ends_on_both_sides_and_a_new_one_can_be_had(proxy, connected):
    connected.client.sendall(b"request")
    received(connected.server, 7)
    proxy.cut()
    for end in (connected.client, connected.server):
        assert received(end, 1) == b""
    again = Connected(proxy)
    with closing(again.client), closing(again.server):
        again.client.sendall(b"again")
        assert received(again.server, 5) == b"again"


def test_a_lost_answer_ends_the_connection_after_the_request_has_arrived(proxy, connected):
    proxy.answers_to_lose = 1
    connected.client.sendall(b"request")
    assert received(connected.server, 7) == b"request"
    connected.server.sendall(b"answer")
    assert received(connected.client, 6) == b""
    assert proxy.answers_to_lose == 0


def test_a_redis_that_is_away_ends_the_connection_of_the_client(proxy):
    with socket.create_server((HOST, 0)) as listener:
        proxy.to_port = listener.getsockname()[1]
    with socket.create_connection((HOST, proxy.port), timeout=30) as client:
        assert client.recv(1) == b""


def test_it_runs_as_a_process_of_its_own():
    with socket.create_server((HOST, 0)) as listener, socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
        free.close()
        command = [sys.executable, "-m", "harness.proxy", str(port), "0.0005"]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            try:
                process.stdin.write(f"{listener.getsockname()[1]}\n".encode())
                process.stdin.flush()
                listener.settimeout(30)
                with _connected_to(port) as client, listener.accept()[0] as server:
                    client.sendall(b"request")
                    assert received(server, 7) == b"request"
            finally:
                process.kill()


def _connected_to(port: int) -> socket.socket:
    ends_at = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection((HOST, port), timeout=30)
        except ConnectionRefusedError:
            assert time.monotonic() < ends_at
            time.sleep(0.01)


def test_a_connection_that_falls_silent_stays_open_and_the_next_one_is_heard(proxy, connected):
    proxy.silence()
    connected.client.sendall(b"request")
    connected.server.sendall(b"answer")
    while proxy.dropped < 2:
        time.sleep(0.01)
    next_one = Connected(proxy)
    with closing(next_one.client), closing(next_one.server):
        next_one.client.sendall(b"request")
        assert received(next_one.server, 7) == b"request"
    for end in (connected.client, connected.server):
        end.setblocking(False)
        with pytest.raises(BlockingIOError):
            end.recv(1)


def test_what_goes_to_a_replica_has_a_delay_of_its_own(proxy, connected):
    proxy.replication_delay_s = 0.3
    connected.client.sendall(b"*3\r\n$5\r\nPSYNC\r\n")
    assert received(connected.server, 15)
    began_at = time.monotonic()
    connected.server.sendall(b"a write")
    other = Connected(proxy)
    with closing(other.client), closing(other.server):
        other.server.sendall(b"an answer")
        assert received(other.client, 9) == b"an answer"
    assert received(connected.client, 7) == b"a write"
    assert time.monotonic() - began_at >= 0.3
