"""A TCP proxy in front of Redis, whose connections can be slow, be cut, and lose answers."""

import asyncio
import threading
from contextlib import suppress

HOST = "127.0.0.1"


class Proxy:
    """Listens on `port` from the start, and connects to `to_port` once that is set. It lives in a thread of its own."""

    def __init__(self) -> None:
        self.to_port = 0
        self.delay_s: float = 0
        """By how much each piece of data is late, in both directions."""
        self.answers_to_lose = 0
        """Of so many requests the answer is cut off on its way back: done, and nobody was told."""
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._connect, HOST, 0), self._loop).result()
        self.port: int = server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Cut every connection that is open."""
        self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for writer in self._open:
            writer.close()

    async def _connect(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            from_redis, to_redis = await asyncio.open_connection(HOST, self.to_port)
            ends = {to_client, to_redis}
            self._open |= ends
            requests = asyncio.create_task(self._pass_on(from_client, to_redis))
            answers = asyncio.create_task(self._pass_on(from_redis, to_client, answers=True))
            await asyncio.wait([requests, answers], return_when=asyncio.FIRST_COMPLETED)
            requests.cancel()
            answers.cancel()
            to_redis.close()
            self._open -= ends
        to_client.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool = False) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if answers and self.answers_to_lose > 0:
                    self.answers_to_lose -= 1
                    return
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(data)
                await writer.drain()
