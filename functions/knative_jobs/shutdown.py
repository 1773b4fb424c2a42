"""SIGTERM, made known to code that runs for long inside a request.

Both granian and gunicorn stop taking requests on SIGTERM and wait for those that run, but neither tells them.
"""

import signal
import socket
import threading

stopping = threading.Event()
"""Set once this process has been told to stop."""

_ours, _theirs = socket.socketpair()  # both for the life of the process


def watch() -> None:
    """Set `stopping` when SIGTERM or SIGINT comes. Call it in the main thread.

    The servers install handlers of their own after this, so it listens beside them:
    https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd
    """
    _theirs.setblocking(False)
    signal.set_wakeup_fd(_theirs.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_listen, daemon=True).start()


def _listen() -> None:
    while not {signal.SIGTERM, signal.SIGINT} & set(_ours.recv(16)):
        pass
    stopping.set()
