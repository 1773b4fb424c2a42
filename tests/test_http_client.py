"""How a message gets to a server and its answer back, and over which connections."""

import asyncio
import gc
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

import pytest
import trustme

from knative_jobs.events import http_client
from knative_jobs.events.http_client import Answer
from tests.conftest import PATIENCE_S
from tests.local.conftest import until

TAKEN = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
CHUNKED = b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n"
UNTIL_IT_CLOSES = b"HTTP/1.1 202 Accepted\r\nConnection: close\r\n\r\nyes"
AND_CLOSES = b"HTTP/1.1 202 Accepted\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
IDLE_TOO_LONG = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"
SILENCE = b""
Post = Callable[..., Coroutine[None, None, Answer]]
Exchange = Callable[[Post], Awaitable[None]]


class Server:
    """A server that gives the listed answers. None: it closes the connection."""

    def __init__(self, *answers: bytes | None, closes_after_s: float | None = None, last_word: bytes = b"") -> None:
        self.answers = list(answers)
        self.closes_after_s, self.last_word = closes_after_s, last_word
        self.messages: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.kept: Callable[[], list[object]] = list
        """The connections to it that the client would use again."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while True:
            try:
                async with asyncio.timeout(self.closes_after_s):
                    head = await reader.readuntil(b"\r\n\r\n")
            except (TimeoutError, asyncio.IncompleteReadError):
                writer.write(self.last_word)
                break
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            self.messages.append(head + await reader.readexactly(length))
            answer = self.answers.pop(0)
            if answer is None:
                break
            writer.write(answer)
            if b"close" in answer:
                break
        writer.close()

    @property
    def connections(self) -> int:
        return len(self.writers)


@pytest.fixture
def against(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Exchange messages with a server, on a loop of their own."""
    monkeypatch.setattr(http_client, "TAKE_SECONDS", PATIENCE_S)

    async def both(server: Server, exchange: Exchange, tls: ssl.SSLContext | None) -> None:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
        scheme, at = "https" if tls else "http", f"localhost:{listening.sockets[0].getsockname()[1]}"

        def post(body: bytes = b"{}", answer_s: float = PATIENCE_S, **headers: str) -> Coroutine[None, None, Answer]:
            return http_client.post(f"{scheme}://{at}/jobs/default?a=b", headers, body, answer_s)

        def kept() -> list[object]:
            return http_client._idle.get((asyncio.get_running_loop(), scheme, at), [])

        server.kept = kept
        try:
            await exchange(post)
        finally:
            for writer in server.writers:
                writer.close()
            listening.close()
        await until(lambda: not kept())  # what the server has closed

    def run(server: Server, exchange: Exchange, tls: ssl.SSLContext | None = None) -> None:
        asyncio.run(both(server, exchange, tls))

    return run


class TestMessages:
    def test_go_to_the_address_as_they_are(self, against) -> None:
        server = Server(TAKEN)

        async def exchange(post: Post) -> None:
            await post(b"hello", name="Zo\u00eb")

        against(server, exchange)
        head, _, body = server.messages[0].partition(b"\r\n\r\n")
        first, *headers = head.split(b"\r\n")
        assert (first, body) == (b"POST /jobs/default?a=b HTTP/1.1", b"hello")
        assert {b"name: Zo\xc3\xab", b"Content-Length: 5"} < set(headers)
        assert any(header.startswith(b"Host: localhost:") for header in headers)

    @pytest.mark.parametrize("value", ["two\r\nlines", "a\0b", "\ud800"])
    def test_with_headers_that_cannot_be_are_not_sent(self, against, value: str) -> None:
        server = Server(TAKEN, TAKEN)

        async def exchange(post: Post) -> None:
            await post()
            with pytest.raises(ValueError, match=r"header cannot be sent|surrogates not allowed"):
                await post(name=value)
            assert (await post()).status == 202

        against(server, exchange)
        assert len(server.messages) == 2

    def test_are_out_before_anybody_waits_for_the_answer_where_a_connection_is_idle(self, against) -> None:
        server = Server(TAKEN, TAKEN)

        async def exchange(post: Post) -> None:
            await post()
            answer = post()
            while len(server.messages) < 2:
                await asyncio.sleep(0)
            assert (await answer).status == 202

        against(server, exchange)


class TestAnswers:
    @pytest.mark.parametrize(
        ("given", "status", "body"),
        [
            (TAKEN, 202, b""),
            (CHUNKED, 202, b"yes"),
            (UNTIL_IT_CLOSES, 202, b"yes"),
            (b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED, 202, b"yes"),
            (b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nlate", 503, b"late"),
        ],
    )
    def test_come_whole(self, against, given: bytes, status: int, body: bytes) -> None:
        async def exchange(post: Post) -> None:
            answer = await post()
            assert (answer.status, answer.body) == (status, body)

        against(Server(given), exchange)

    def test_have_headers(self, against) -> None:
        async def exchange(post: Post) -> None:
            assert (await post()).headers == {"ce-id": "1", "content-length": "0"}

        against(Server(b"HTTP/1.1 200 OK\r\nCe-Id: 1\r\nContent-Length: 0\r\n\r\n"), exchange)

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            (None, "closed the connection"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhalf", "closed the connection"),
            (b"220 mail.example ESMTP\r\n\r\n", "no HTTP/1.1"),
        ],
    )
    def test_that_are_none_are_an_error(self, against, given: bytes | None, why: str) -> None:
        async def exchange(post: Post) -> None:
            with pytest.raises(ConnectionError, match=why):
                await post()

        against(Server(given), exchange)

    def test_that_do_not_come_in_time_leave_the_message_with_the_server(self, against) -> None:
        server = Server(TAKEN, SILENCE, TAKEN)

        async def exchange(post: Post) -> None:
            await post()
            with pytest.raises(http_client.NoAnswerError):
                await post(answer_s=0.1)
            assert (await post()).status == 202

        against(server, exchange)
        assert (len(server.messages), server.connections) == (3, 2), "the next may not get the answer to this one"

    def test_a_server_that_does_not_read_does_not_have_the_message(
        self, against, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(http_client, "TAKE_SECONDS", 0.2)

        class Deaf(Server):
            async def serve(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                self.writers.append(writer)

        async def exchange(post: Post) -> None:
            with pytest.raises(TimeoutError):
                await post(bytes(50_000_000), answer_s=0.1)

        against(Deaf(), exchange)
        gc.collect()
        assert not caplog.records, "an answer that nobody waits for is nobody's"


class TestConnections:
    def test_one_is_enough_for_messages_one_after_the_other(self, against) -> None:
        server = Server(TAKEN, CHUNKED, b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nlate", TAKEN)

        async def exchange(post: Post) -> None:
            assert [(await post()).status for _ in range(4)] == [202, 202, 503, 202]

        against(server, exchange)
        assert server.connections == 1

    def test_messages_at_the_same_time_have_one_each(self, against) -> None:
        server = Server(*[TAKEN] * 6)

        async def exchange(post: Post) -> None:
            for _ in range(2):
                assert {answer.status for answer in await asyncio.gather(post(), post(), post())} == {202}

        against(server, exchange)
        assert server.connections == 3

    @pytest.mark.parametrize(
        "server",
        [
            pytest.param(Server(AND_CLOSES, TAKEN), id="as announced"),
            pytest.param(Server(TAKEN, TAKEN, closes_after_s=0.05), id="while it was idle"),
            pytest.param(Server(TAKEN, TAKEN, closes_after_s=0.05, last_word=IDLE_TOO_LONG), id="with a last word"),
            pytest.param(Server(TAKEN + TAKEN, TAKEN), id="after an answer too many"),
            pytest.param(Server(TAKEN, None, TAKEN), id="as the message went out"),
        ],
    )
    def test_one_that_the_server_has_closed_costs_no_message(self, against, server: Server) -> None:
        async def exchange(post: Post) -> None:
            assert (await post()).status == 202
            if None not in server.answers:
                await until(lambda: not server.kept())  # the client has noticed that it was closed
            assert (await post()).status == 202

        against(server, exchange)
        assert server.connections == 2

    @pytest.mark.parametrize("trusted", [True, False])
    def test_over_tls_the_server_must_be_who_it_says(
        self, against, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
    ) -> None:
        authority, certificate = trustme.CA(), tmp_path / "authority.pem"
        authority.cert_pem.write_to_path(str(certificate))
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(tls)
        if trusted:
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

        async def exchange(post: Post) -> None:
            if trusted:
                assert [(await post()).status for _ in range(2)] == [202, 202]
            else:
                with pytest.raises(ssl.SSLCertVerificationError):
                    await post()

        server = Server(TAKEN, TAKEN)
        against(server, exchange, tls)
        assert server.connections == (1 if trusted else 0)
