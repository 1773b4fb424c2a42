"""How a message gets to the sink, and over which connections."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

import pytest

from knative_jobs import sink
from knative_jobs.settings import Settings

TAKEN = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
CHUNKED = b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n"
AND_CLOSES = b"HTTP/1.1 202 Accepted\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
SILENCE = b""


class Sink:
    """A server that gives the listed answers. None: it closes the connection."""

    def __init__(self, *answers: bytes | None, closes_after_s: float | None = None) -> None:
        self.answers = list(answers)
        self.closes_after_s = closes_after_s
        self.messages: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while True:
            try:
                async with asyncio.timeout(self.closes_after_s):
                    head = await reader.readuntil(b"\r\n\r\n")
            except (TimeoutError, asyncio.IncompleteReadError):
                break
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            self.messages.append(head + await reader.readexactly(length))
            answer = self.answers.pop(0)
            if answer is None:
                break
            writer.write(answer)
        writer.close()

    @property
    def connections(self) -> int:
        return len(self.writers)


@pytest.fixture
def against(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a client on a loop of its own, with the server for its sink."""

    def run(server: Sink, client: Callable[[], Awaitable[None]], tls: ssl.SSLContext | None = None) -> None:
        async def both() -> None:
            listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
            at = f"{'https' if tls else 'http'}://localhost:{listening.sockets[0].getsockname()[1]}"
            monkeypatch.setattr(sink, "settings", lambda: Settings(k_sink=f"{at}/jobs/default?a=b"))
            try:
                await client()
            finally:
                kept = [connection.writer for connection in sink._kept(asyncio.get_running_loop())]
                for writer in kept + server.writers:
                    writer.close()
                listening.close()
                await asyncio.sleep(0.05)  # until all has been closed

        asyncio.run(both())

    return run


def post(answer_s: float = 20) -> Coroutine[None, None, int]:
    return sink.post({"ce-id": "1"}, b"{}", answer_s)


def test_messages_go_to_the_address_of_the_sink_over_one_connection(against) -> None:
    server = Sink(TAKEN, CHUNKED, b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nlate", TAKEN)

    async def client() -> None:
        assert [await post() for _ in range(4)] == [202, 202, 503, 202]

    against(server, client)
    assert server.connections == 1
    assert len(set(server.messages)) == 1
    head, _, body = server.messages[0].partition(b"\r\n\r\n")
    first, *headers = head.split(b"\r\n")
    assert (first, body) == (b"POST /jobs/default?a=b HTTP/1.1", b"{}")
    assert {b"ce-id: 1", b"Content-Length: 2"} < set(headers)
    assert any(header.startswith(b"Host: localhost:") for header in headers)


def test_messages_at_the_same_time_have_a_connection_each(against) -> None:
    server = Sink(*[TAKEN] * 6)

    async def client() -> None:
        for _ in range(2):
            assert await asyncio.gather(post(), post(), post()) == [202] * 3

    against(server, client)
    assert server.connections == 3


def test_with_an_idle_connection_the_message_is_out_before_anybody_waits_for_the_answer(against) -> None:
    server = Sink(TAKEN, TAKEN)

    async def client() -> None:
        await post()
        exchange = post()
        while len(server.messages) < 2:
            await asyncio.sleep(0)
        assert await exchange == 202

    against(server, client)


@pytest.mark.parametrize(
    "server",
    [
        pytest.param(Sink(AND_CLOSES, TAKEN), id="as announced"),
        pytest.param(Sink(TAKEN, TAKEN, closes_after_s=0.05), id="while it was idle"),
        pytest.param(Sink(TAKEN, None, TAKEN), id="as the message went out"),
    ],
)
def test_a_connection_that_the_sink_has_closed_costs_no_message(against, server: Sink) -> None:
    async def client() -> None:
        assert await post() == 202
        await asyncio.sleep(0.2)
        assert await post() == 202

    against(server, client)
    assert server.connections == 2


def test_a_sink_that_always_hangs_up_is_an_error(against) -> None:
    async def client() -> None:
        with pytest.raises(ConnectionError):
            await post()

    against(Sink(None), client)


def test_what_is_no_http_is_an_error(against) -> None:
    async def client() -> None:
        with pytest.raises(Exception, match="illegal status line"):
            await post()

    against(Sink(b"220 mail.example ESMTP\r\n\r\n"), client)


def test_a_sink_that_does_not_answer_in_time_has_the_message_and_its_connection_is_not_used_again(against) -> None:
    server = Sink(TAKEN, SILENCE, TAKEN)

    async def client() -> None:
        await post()
        with pytest.raises(sink.NoAnswerError):
            await post(answer_s=0.1)
        assert await post() == 202

    against(server, client)
    assert (len(server.messages), server.connections) == (3, 2)


def test_a_sink_that_does_not_read_does_not_have_the_message(against, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "TAKE_SECONDS", 0.2)

    class Deaf(Sink):
        async def serve(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.writers.append(writer)

    async def client() -> None:
        with pytest.raises(TimeoutError):
            await sink.post({}, bytes(50_000_000), answer_s=0.1)

    against(Deaf(), client)


@pytest.mark.parametrize("trusted", [True, False])
def test_over_tls_the_sink_must_be_who_it_says(
    against, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    openssl = shutil.which("openssl")
    assert openssl, "openssl is needed, to make a certificate"
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"]
    subprocess.run([*command, "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def client() -> None:
        if trusted:
            assert [await post(), await post()] == [202, 202]
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                await post()

    server = Sink(TAKEN, TAKEN)
    against(server, client, tls)
    assert server.connections == (1 if trusted else 0)
