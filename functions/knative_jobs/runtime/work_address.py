"""The address of a service that does the work, in JOB_WORK."""

from base64 import b64encode
from typing import NamedTuple
from urllib.parse import unquote, urlsplit


class WorkAddress(NamedTuple):
    """Where jobs are posted to."""

    tls: bool
    host: str
    port: int
    target: str
    """The path, and the query where there is one."""
    authorization: str
    """The header of that name, of the user and password in the address. Empty: it has none. It is a secret."""


def is_address(work: str) -> bool:
    """Tell whether JOB_WORK is an address; otherwise it names a function."""
    return work.startswith(("http://", "https://"))


def parse(work: str) -> WorkAddress:
    """Return the parts of an address.

    Raises:
        ValueError: it cannot be used. The message does not say the address, which may have a password.
    """
    try:
        parts = urlsplit(work)
        host, port, tls = parts.hostname, parts.port, parts.scheme == "https"
    except ValueError:
        raise ValueError("is an address with a host or a port that is none") from None
    if not host or not work.isascii() or not work.isprintable() or " " in work:
        raise ValueError("is an address without a host, or with characters that an address does not have")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}" if "@" in parts.netloc else ""
    basic = f"Basic {b64encode(user.encode()).decode()}" if user else ""
    return WorkAddress(tls, host, port or (443 if tls else 80), target, basic)


def check(work: str) -> None:
    """Raise a ValueError if JOB_WORK is an address that cannot be used."""
    if is_address(work):
        parse(work)
