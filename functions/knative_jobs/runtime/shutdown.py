"""SIGTERM, made known to code that runs for long inside a request.

granian and gunicorn stop taking requests on SIGTERM and wait for those that run, but neither tells them.
"""

import signal
import socket
import threading
from collections.abc import Callable

stopping = threading.Event()
"""Set once this process has been told to stop."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_WAKE = signal.SIGURG  # ignored where it has no handler
_to_call: list[Callable[[], object]] = []


def call_when_stopping(function: Callable[[], object]) -> None:
    """Call a function once this process is told to stop. It may be called in any thread, and must not block."""
    _to_call.append(function)


def watch() -> None:
    """Set `stopping` when SIGTERM or SIGINT comes, in a process of a server. Call it in the main thread.

    The servers install handlers of their own after this, so it listens beside them. Without a handler it hears nothing:
    https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd

    The kernel may give the signal to another thread than the main one, as to one that is just starting a process. Then
    Python only notes it for the main thread, and a server that waits there does not wake. So the main thread gets a
    second signal, which nobody else uses. From then on, further ones of the first are ignored: granian's handler,
    interrupted by itself, waits for itself.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.detach(), warn_on_full_buffer=False)  # for the life of the process
    signal.signal(_WAKE, _ignore_more)
    threading.Thread(target=_listen, args=[ours], daemon=True).start()


def _ignore_more(*_: object) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def handle() -> None:
    """Do the same where nobody else handles these signals.

    That is a process that is no server, and one whose main thread runs an asyncio loop: the loop already owns the
    wakeup descriptor, and needs no handler in Python. Call it in the main thread.
    """
    for number in _SIGNALS:
        signal.signal(number, lambda *_: _stop())


def _listen(woken: socket.socket) -> None:
    while not set(_SIGNALS) & set(woken.recv(16)):
        pass
    _stop()
    signal.pthread_kill(threading.main_thread().ident or 0, _WAKE)
    while woken.recv(16):  # Python goes on writing there
        pass


def _stop() -> None:
    stopping.set()
    for function in _to_call:
        function()
