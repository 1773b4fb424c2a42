"""Connections to the primary: to one server, to the one that Sentinels name, or to the node of a cluster with our keys.

After a failover an open connection may still lead to the old primary, which is a replica now. Writes are refused then;
and every CHECK_SECONDS a connection in use is asked for the role of its server, so a process that only reads finds out
too. Such a connection is closed, and the call is repeated once on a new one.
"""

import asyncio
from functools import cache
from typing import Any

import redis
import redis.asyncio
from redis.backoff import NoBackoff

from knative_jobs.runtime import redis_url
from knative_jobs.runtime.settings import settings
from knative_jobs.store import cluster, lua_scripts

ANSWER_SECONDS = 1
"""How long Redis may take to answer, and to take a connection."""
SENTINEL_SECONDS = 0.3
"""The same for a Sentinel; then the next is asked."""
CHECK_SECONDS = 1
"""A connection in use is asked so often whether it leads to the primary."""
ROLE = ("ROLE",)
"""The command that asks for it: https://redis.io/docs/latest/commands/role/"""
NO_ANSWER = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
"""What redis-py raises when Redis is away, still loads its data, or does not know the user or password (any more)."""
REFUSAL = redis.exceptions.ResponseError
"""What redis-py raises when Redis refuses a command."""
_WRONG_SERVER = (
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterDownError,  # MasterDownError too
    redis.exceptions.NoPermissionError,  # as by another server with other users
    redis.exceptions.AskError,  # MovedError too
    redis.exceptions.TryAgainError,
)
_WRONG_SERVER_CODES = ("UNBLOCKED", "NOREPLICAS")  # which redis-py has no exceptions for


async def connect() -> Any:
    """Return a new connection for the event loop: redis-py's.

    Raises:
        NO_ANSWER: there is none to be had in time.
    """
    to_ask = SENTINEL_SECONDS if _url().service else cluster.NODE_SECONDS if _url().is_cluster else 0
    try:
        async with asyncio.timeout(ANSWER_SECONDS + to_ask * len(_url().nodes)):
            connection = _pool_of_loop().make_connection()
            await connection.connect()
    except TimeoutError as error:
        raise redis.exceptions.TimeoutError("no connection in time") from error
    except REFUSAL as error:
        raise redis.exceptions.ConnectionError(f"no connection: {error}") from error
    return connection


@cache
def _pool_of_loop() -> Any:
    return pool(redis.asyncio, socket_timeout=None)


def pool(client: Any, **how: Any) -> Any:
    """Return what makes connections to the primary of REDIS_URL.

    With Sentinels, each connection that is made asks them where the primary is; in a cluster, it finds the node that
    has our keys.

    Args:
        client: `redis` for connections that block, `redis.asyncio` for those of an event loop.
        how: further options of redis-py.
    """
    s = settings()
    common = {
        "socket_connect_timeout": ANSWER_SECONDS,
        "retry": client.retry.Retry(NoBackoff(), 0),
        "driver_info": None,  # saves two round trips on every new connection
    }
    own = {"username": s.redis_username or None, "password": s.redis_password or None, **common, **how}
    if not (_url().service or _url().is_cluster):
        return client.ConnectionPool.from_url(_url().url, **own)
    options = redis.connection.parse_url(_url().url)  # type: ignore[no-untyped-call]
    for name in ("host", "port"):
        options.pop(name, None)
    tls = options.pop("connection_class", None) is not None
    if _url().is_cluster:
        own |= {"socket_connect_timeout": cluster.NODE_SECONDS, "slot": _slot()}
        return client.ConnectionPool(cluster.connection_class(client, tls), **options | own)
    known = client.sentinel.Sentinel(
        _url().nodes,
        sentinel_kwargs={
            "username": s.redis_sentinel_username or None,
            "password": s.redis_sentinel_password or None,
            **common,
            "socket_timeout": SENTINEL_SECONDS,
            "socket_connect_timeout": SENTINEL_SECONDS,
            "ssl": tls,
            **{name: value for name, value in options.items() if name.startswith("ssl_")},
        },
    )
    return client.sentinel.SentinelConnectionPool(_url().service, known, ssl=tls, **own, **options)


@cache
def _slot() -> cluster.Slot:
    return cluster.Slot(lua_scripts.key(), _url().nodes)


def _url() -> redis_url.RedisUrl:
    return redis_url.parse(settings().redis_url)


def is_from_wrong_server(reply: Any) -> bool:
    """Tell whether a reply says that another server is the one to ask, so that its connection is to be given up."""
    if not isinstance(reply, REFUSAL):
        return False
    return isinstance(reply, _WRONG_SERVER) or str(reply).startswith(_WRONG_SERVER_CODES)


def is_replica(role: Any) -> bool:
    """Tell whether this reply to ROLE is that of a replica. An error, as where ROLE is not allowed, tells nothing."""
    return isinstance(role, list) and bool(role) and role[0] != b"master"


class FromReplica(list[Any]):
    """Replies of a server that says that it is a replica: what was read may be old."""
