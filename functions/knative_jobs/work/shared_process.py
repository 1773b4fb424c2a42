"""The worker's side of a work process that does several attempts at once: see `event_loop`."""

import logging
import select
import threading
import time
from typing import TYPE_CHECKING, Any

from knative_jobs.work.messages import BadMessageError, Channel

if TYPE_CHECKING:
    from knative_jobs.work.launcher import WorkProcess

CANCEL_SECONDS = 2
"""An attempt that nobody waits for any more must end within so long. Else the process is ended, with all attempts."""
CATCH_UP_SECONDS = 1
"""An attempt waits so long for the log of the others at most: they may go on printing."""
_PERIOD_SECONDS = 1
_NOT_KNOWN = "the attempt ended without an outcome"

_log = logging.getLogger("knative_jobs.worker")


class SharedProcess:
    """A work process, and the thread that passes on what the work says and notices its end."""

    def __init__(self, process: "WorkProcess") -> None:
        """Take over a process that no attempt has."""
        self._process = process
        self._ended = threading.Event()
        self._how = ""
        self._attempts: set[SharedAttempt] = set()
        threading.Thread(target=self._listen, daemon=True, name="shared process").start()

    def has_ended(self) -> bool:
        """Return whether the process has ended, and what it has started with it."""
        return self._ended.is_set()

    def begin(self) -> "SharedAttempt":
        """Return what does one attempt.

        Raises:
            OSError: the process has just ended.
        """
        attempt = SharedAttempt(self, self._process.open_channel())
        self._attempts.add(attempt)
        if self._ended.is_set():  # meanwhile: the thread has not seen this attempt
            attempt.cut()
        return attempt

    def forget(self, attempt: "SharedAttempt") -> None:
        """Take note that an attempt has ended."""
        self._attempts.discard(attempt)

    def catch_up(self) -> None:
        """Wait until what the process has said by now is passed on, for up to CATCH_UP_SECONDS."""
        self._process.output.wait_until_read(CATCH_UP_SECONDS)

    def kill(self) -> None:
        """End the process and all that it has started."""
        self._process.kill()

    def how_it_ended(self, patience_s: float) -> str:
        """Return how the process ended; empty if it has not after so many seconds."""
        return self._how if self._ended.wait(patience_s) else ""

    def _listen(self) -> None:
        try:
            while True:
                self._process.receive(time.monotonic() + _PERIOD_SECONDS)
        except (EOFError, OSError, BadMessageError):
            pass
        except Exception:  # nobody would notice the end of the process any more
            _log.exception("the work process is ended")
        self._how = self._process.end(_PERIOD_SECONDS)
        self._ended.set()
        for attempt in list(self._attempts):
            attempt.cut()


class SharedAttempt:
    """One attempt in a shared process. To an attempt it is what a work process is, see `launcher.WorkProcess`."""

    def __init__(self, process: SharedProcess, channel: Channel) -> None:
        """Begin nothing yet."""
        self._process = process
        self._channel = channel
        self._any = select.poll()
        self._any.register(channel, select.POLLIN)

    def attribute(self, *attempt: Any) -> None:
        """Wait until what the process has said by now is passed on: it says itself which attempt that was."""
        if not attempt:
            self._process.catch_up()

    def send(self, *message: Any) -> None:
        """Send a message of `work.messages`.

        Raises:
            OSError: the process has ended.
        """
        self._channel.send(*message)

    def receive(self, until: float) -> list[Any] | None:
        """Wait for the next message; None once `time.monotonic()` is as late as `until`.

        Raises:
            EOFError, OSError: the process has ended.
            BadMessageError: it sent something that is not a message.
        """
        while (message := self._channel.received()) is None:
            left_s = until - time.monotonic()
            if left_s <= 0 or not self._any.poll(left_s * 1000):
                return None
            self._channel.read()
        return message

    def release(self) -> None:
        """Close the channel of an attempt that has told its outcome."""
        self._process.forget(self)
        self._channel.close()

    def end(self, patience_s: float = 0) -> str:
        """Have an attempt end that has told no outcome, and return how. If that takes too long, end the process.

        Args:
            patience_s: how long the process may take to end by itself, where it is what has ended the attempt.
        """
        how = self._process.how_it_ended(patience_s)
        self._channel.hang_up()
        if not how and not self._has_closed():
            self._process.kill()
            how = self._process.how_it_ended(CANCEL_SECONDS)  # before another attempt asks for it
        self.release()
        return how or _NOT_KNOWN

    def cut(self) -> None:
        """Let who waits in `receive` know that the process has ended, also where a child of it holds the channel."""
        self._channel.cut()

    def _has_closed(self) -> bool:
        """Wait for the process to close its end. Return False when it takes too long."""
        until = time.monotonic() + CANCEL_SECONDS
        try:
            while time.monotonic() < until:
                self.receive(until)
        except (EOFError, OSError):
            return True
        except BadMessageError:
            pass
        return False
