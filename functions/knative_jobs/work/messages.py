"""The messages between a worker and the process that does its work: JSON arrays, one a line, over a socket.

    to the work     ["work", id, attempt, kind, start, end, which of the two are numbers or ABSENT,
                     input as JSON text or "", traceparent, checkpoint as JSON text or "",
                     seconds that the attempt may take]
                    ["cancel", id, attempt]
                    ["stopping", id, attempt, seconds until the job is handed back]
    to the worker   ["ready"]   ["ready", "several"]   ["unusable", why]      once, at the start
                    ["progress", id, attempt, fraction, message]
                    ["checkpoint", id, attempt, value as JSON text]
                    ["complete", id, attempt, result as JSON text]
                    ["error", id, attempt, error, seconds before the next attempt or null]
                    ["failed", id, attempt, error]
                    ["cancelled", id, attempt]
                    ["continue", id, attempt]

A message of an attempt names it, so whoever has gone on to another attempt can drop the message. The process runs code
that nobody here has seen, so nothing that it sends is unpickled, and the worker checks all of it.
"""

import json
import os
import re
import socket
from contextlib import suppress
from typing import Any

ABSENT = "absent"
"""In place of the names of the numbers: a job has neither start nor end."""
MAX_RESULT_BYTES = 256 * 1024
MAX_CHECKPOINT_BYTES = 64 * 1024
MAX_ERROR_TEXT = 2000
"""The type of an error, its message and its traceback may each have so many characters."""
MAX_RESULT_DEPTH = 100
"""How deep arrays and objects may be nested in a result. Many JSON parsers, Ruby's for one, refuse more by default."""
MAX_RESULT_DIGITS = 4300
"""The most digits of an integer in a result: Python's own parser refuses more by default.

https://docs.python.org/3/library/stdtypes.html#integer-string-conversion-length-limitation
"""
_MAX_MESSAGE_BYTES = 1024 * 1024  # a result of MAX_RESULT_BYTES has up to twice as many when it is a string in JSON
_READ_BYTES = 64 * 1024
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


class BadMessageError(Exception):
    """What came is not a message: the two processes do not understand each other any more."""


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# Made once: json.dumps and json.loads make them anew for each call whose options are not the default.
_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
_encode = json.JSONEncoder(allow_nan=False).encode


class Channel:
    """One end of the socket. It is for one thread at a time."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._received = bytearray()

    def fileno(self) -> int:
        """Return the file descriptor, for a selector."""
        return self._socket.fileno()

    def send(self, *message: Any) -> None:
        """Send a message.

        Raises:
            OSError: the other side is gone.
        """
        self._socket.sendall(f"{_encode(message)}\n".encode())

    def receive(self) -> list[Any]:
        """Wait for the next message and return it.

        Raises:
            EOFError, OSError: the other side is gone.
            BadMessageError: what came is not a message.
        """
        while (message := self.received()) is None:
            self.read()
        return message

    def received(self) -> list[Any] | None:
        """Return the next message of those that `read` has got, or None.

        Raises:
            BadMessageError: what came is not a message.
        """
        end = self._received.find(b"\n")
        if end < 0:
            if len(self._received) > _MAX_MESSAGE_BYTES:
                raise BadMessageError(f"a message of over {_MAX_MESSAGE_BYTES} bytes")
            return None
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        try:
            message = _decoder.decode(line.decode())
        except (ValueError, RecursionError) as error:
            raise BadMessageError(f"{line[:100]!r}: {error}") from error
        if not (isinstance(message, list) and message and isinstance(message[0], str)):
            raise BadMessageError(f"{line[:100]!r}")
        return message

    def holds_message(self) -> bool:
        """Return whether `received` would return a message."""
        return b"\n" in self._received

    def read(self, *, wait: bool = True) -> bool:
        """Read what there is, for `received`. Return whether there was anything.

        Args:
            wait: for something to come.

        Raises:
            EOFError, OSError: the other side is gone.
        """
        try:
            data = self._socket.recv(_READ_BYTES, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        if not data:
            raise EOFError
        self._received += data
        return True

    def open_channel(self) -> "Channel":
        """Send the other side a new socket, and return this side's end of it.

        Raises:
            OSError: the other side is gone.
        """
        ours, theirs = socket.socketpair()
        try:
            socket.send_fds(self._socket, [b"+"], [theirs.fileno()])
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return Channel(ours)

    def receive_channel(self) -> "Channel":
        """Wait for a socket that the other side has opened with `open_channel`, and return this side's end of it.

        Raises:
            EOFError, OSError: the other side is gone.
        """
        _, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1)
        if not descriptors:
            raise EOFError
        [descriptor] = descriptors
        os.set_inheritable(descriptor, False)
        return Channel(socket.socket(fileno=descriptor))

    def hang_up(self) -> None:
        """Tell the other side that nothing more comes. It may still send."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """End it in both directions. Who waits in `receive` or `read` gets an EOFError."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this end."""
        self._socket.close()


def result_text(result: Any, most_bytes: int = MAX_RESULT_BYTES) -> str:
    """Return what the work returned as JSON text that can be stored, and read by whoever asks for it.

    Raises:
        Exception: it cannot be; the message says why. (A class of the user's may raise anything while it is read.)
    """
    text = _encode(result)
    if len(text) > most_bytes:
        raise ValueError(f"it has over {most_bytes} bytes as JSON")
    check_readable(text)
    return text


def check_readable(text: str) -> None:
    """Raise a ValueError, whose message says why, if some JSON parsers would refuse this JSON text."""
    if text.count("[") + text.count("{") > MAX_RESULT_DEPTH and _depth(text) > MAX_RESULT_DEPTH:
        raise ValueError(f"it is nested more than {MAX_RESULT_DEPTH} deep")
    if len(text) > MAX_RESULT_DIGITS and re.search(rf"\d{{{MAX_RESULT_DIGITS + 1}}}", _STRING.sub("", text)):
        raise ValueError(f"it has a number of more than {MAX_RESULT_DIGITS} digits")


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError, RecursionError: it is none, or nested too deep.
    """
    return _decoder.decode(text)


def is_result(text: str, most_bytes: int = MAX_RESULT_BYTES) -> bool:
    """Return whether the text can be one that `result_text` returned."""
    try:
        _decoder.decode(text)
    except (ValueError, RecursionError):
        return False
    return len(text) <= most_bytes and text.isascii()


def storable(text: str) -> str:
    """Return the text with what is not Unicode replaced: a file name that is no UTF-8 has surrogates in its place."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _depth(text: str) -> int:
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest
