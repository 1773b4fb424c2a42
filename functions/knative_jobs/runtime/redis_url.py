"""REDIS_URL, read: the address of one server, or of the Sentinels that know which server is the primary.

    redis://HOST:6379/0                                 rediss:// is the same over TLS
    redis+sentinel://HOST:26379,HOST:26379/NAME/0       NAME is what the Sentinels call the primary; rediss+sentinel://

Both may have `USER:PASSWORD@` for Redis before the first host, and options of redis-py at the end, as `?ssl_ca_certs=`.
"""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

_SENTINEL = "+sentinel"
_SCHEMES = ("redis", "rediss", "unix", f"redis{_SENTINEL}", f"rediss{_SENTINEL}")


class RedisUrl(NamedTuple):
    """Where Redis is."""

    url: str
    """As redis-py takes it. With Sentinels it has the host of the first, and all that they and Redis have in common."""
    nodes: tuple[tuple[str, int], ...]
    """Host and port of the server, or of each Sentinel; none for a Unix socket."""
    service: str = ""
    """What the Sentinels call the primary; empty: there are none."""


def parse(text: str) -> RedisUrl:
    """Read REDIS_URL.

    Raises:
        ValueError: it cannot be used. The message does not show it, for it may hold a password.
    """
    url = urlsplit(text)
    if url.scheme not in _SCHEMES:
        raise ValueError(f"must begin with one of {', '.join(f'{scheme}://' for scheme in _SCHEMES)}")
    if url.scheme == "unix":
        return RedisUrl(text, ())
    user, at, hosts = url.netloc.rpartition("@")
    has_sentinels = url.scheme.endswith(_SENTINEL)
    nodes = tuple(_node(host, 26379 if has_sentinels else 6379) for host in hosts.split(","))
    if not has_sentinels:
        if len(nodes) > 1:
            raise ValueError(f"has several hosts, which only a URL of Sentinels may have ({url.scheme}{_SENTINEL}://)")
        return RedisUrl(text, nodes)
    path = re.fullmatch(r"/([^/]+)(?:/(\d*))?", url.path)
    if not path:
        raise ValueError(f"must end with the primary's name and a database: {url.scheme}://HOST:26379/NAME/0")
    scheme, first = url.scheme.removesuffix(_SENTINEL), hosts.split(",")[0]
    common = url._replace(scheme=scheme, netloc=f"{user}{at}{first}", path=f"/{path[2] or 0}")
    return RedisUrl(common.geturl(), nodes, path[1])


def _node(text: str, default_port: int) -> tuple[str, int]:
    host = urlsplit(f"//{text}")
    try:
        port = host.port or default_port
    except ValueError:
        raise ValueError("has a port that is no number up to 65535") from None
    return host.hostname or "127.0.0.1", port
