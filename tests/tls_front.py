"""TLS in front of a server on this machine, whether or not its build knows TLS."""

import select
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import trustme

HANDSHAKE = b"\x16"


@contextmanager
def tls_front(authority: trustme.CA, to_port: int) -> Iterator[int]:
    """Yield the port that leads there: over TLS, with a certificate for 127.0.0.1, or plain where a client speaks so.

    A Sentinel speaks so, and tells of the port by which it knows a server.
    """
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)

    class PassOn(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                over_tls = self.request.recv(1, socket.MSG_PEEK) == HANDSHAKE
                with (
                    tls.wrap_socket(self.request, server_side=True) if over_tls else self.request as client,
                    socket.create_connection(("127.0.0.1", to_port)) as server,
                ):
                    while True:
                        pending = over_tls and client.pending()
                        for source in [client] if pending else select.select([client, server], [], [])[0]:
                            data = source.recv(65536)
                            if not data:
                                return
                            (server if source is client else client).sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), PassOn) as front:
        front.daemon_threads = True
        threading.Thread(target=front.serve_forever, args=[0.01]).start()
        yield front.server_address[1]
        front.shutdown()
