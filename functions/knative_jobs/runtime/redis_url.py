"""REDIS_URL, read: the address of one server, of the Sentinels that know which is the primary, or of a Redis Cluster.

    redis://HOST:6379/0                                 rediss:// is the same over TLS
    redis+sentinel://HOST:26379,HOST:26379/NAME/0       NAME is what the Sentinels call the primary; rediss+sentinel://
    redis+cluster://HOST:6379,HOST:6379                 some nodes of the cluster, or an address for all; rediss+cluster://

Each may have `USER:PASSWORD@` for Redis before the first host, and options of redis-py at the end, as `?ssl_ca_certs=`.
"""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

_SENTINEL, _CLUSTER = "+sentinel", "+cluster"
_SCHEMES = (
    "redis",
    "rediss",
    "unix",
    *(f"{tls}{kind}" for kind in (_SENTINEL, _CLUSTER) for tls in ("redis", "rediss")),
)


class RedisUrl(NamedTuple):
    """Where Redis is."""

    url: str
    """As redis-py takes it. With several hosts it has the first, and all that they have in common."""
    nodes: tuple[tuple[str, int], ...]
    """Host and port of the server, of each Sentinel, or of each named node; none for a Unix socket."""
    service: str = ""
    """What the Sentinels call the primary; empty: there are none."""
    is_cluster: bool = False
    """Whether the nodes are those of a Redis Cluster."""


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
    has_sentinels, is_cluster = url.scheme.endswith(_SENTINEL), url.scheme.endswith(_CLUSTER)
    nodes = tuple(_node(host, 26379 if has_sentinels else 6379) for host in hosts.split(","))
    if not (has_sentinels or is_cluster):
        if len(nodes) > 1:
            several = f"{url.scheme}{_SENTINEL}:// or {url.scheme}{_CLUSTER}://"
            raise ValueError(f"has several hosts, which only a URL of Sentinels or of a cluster may have: {several}")
        return RedisUrl(text, nodes)
    scheme, _, _ = url.scheme.partition("+")
    common = url._replace(scheme=scheme, netloc=f"{user}{at}{hosts.split(',')[0]}", path="")
    if is_cluster:
        if url.path not in ("", "/", "/0"):
            raise ValueError(f"names a database, and a Redis Cluster has no other than 0: {url.scheme}://HOST:6379")
        return RedisUrl(common.geturl(), nodes, is_cluster=True)
    path = re.fullmatch(r"/([^/]+)(?:/(\d*))?", url.path)
    if not path:
        raise ValueError(f"must end with the primary's name and a database: {url.scheme}://HOST:26379/NAME/0")
    return RedisUrl(common._replace(path=f"/{path[2] or 0}").geturl(), nodes, path[1])


def _node(text: str, default_port: int) -> tuple[str, int]:
    host = urlsplit(f"//{text}")
    try:
        port = host.port or default_port
    except ValueError:
        raise ValueError("has a port that is no number up to 65535") from None
    return host.hostname or "127.0.0.1", port
