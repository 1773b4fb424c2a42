"""IPv6 loopback: what comes to [::1] is passed on to 127.0.0.1, where the server listens.

Some programs take `localhost` for ::1 alone. Not every machine has that address.
"""

import asyncio
import errno
from functools import partial
from typing import cast

from local.log import say

HERE = "::1"
_NO_IPV6 = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


async def listen(port: int, to: str) -> asyncio.Server | None:
    """Listen on [::1] and pass each connection on to the same port at the address `to`. None: that cannot be."""
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(partial(_Client, to, port), HERE, port)
    except OSError as error:
        if error.errno not in _NO_IPV6:
            say("local", f"does not listen on [{HERE}]:{port}: {error.strerror}")
        return None


class _End(asyncio.Protocol):
    """One end of what is passed on: what it receives, the other end sends."""

    def __init__(self, other: "_End | None" = None) -> None:
        self.other = other
        self.ended = False
        """Whether it has received all."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.other:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        if not self.other or self.other.ended:
            return False
        self.other.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if self.other:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other:
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.other:
            self.other.transport.abort() if error else self.other.transport.close()


class _Client(_End):
    """The end that has come to us. It is read once there is another end."""

    def __init__(self, to: str, port: int) -> None:
        super().__init__()
        self._to = to, port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, self.other = await loop.create_connection(partial(_End, self), *self._to)
        except OSError:
            self.transport.abort()
        else:
            self.transport.resume_reading()
