"""Confirmation: waiting until as many replicas have what was written as REDIS_WAIT_REPLICAS says, or disks too.

WAIT blocks its connection, and covers only what was written on that connection.
"""

from typing import Any

from knative_jobs.runtime.errors import UnconfirmedError
from knative_jobs.runtime.settings import settings
from knative_jobs.store.lua_scripts import TOUCH, Command, evalsha
from knative_jobs.store.primary import REFUSAL

REPLICA_SECONDS, DISK_SECONDS = 1, 2
"""How long replicas, or disks too, may take to confirm a write. With `appendfsync everysec` a disk takes a second."""


def is_wanted() -> bool:
    """Tell whether anything is to be confirmed, by the settings."""
    return bool(settings().redis_wait_replicas or settings().redis_wait_fsync)


def commands() -> list[Command]:
    """Return what follows the calls that are to be confirmed: https://redis.io/docs/latest/commands/waitaof/

    A call that is repeated may find its work done and write nothing, and WAIT would then wait for nothing. So a write
    that changes nothing comes before it.
    """
    replicas, ms = settings().redis_wait_replicas, seconds() * 1000
    wait = ("WAITAOF", 1, replicas, ms) if settings().redis_wait_fsync else ("WAIT", replicas, ms)
    return [evalsha(TOUCH), wait]


def is_confirmed(replies: list[Any]) -> bool:
    """Tell whether these replies to `commands` say that enough replicas and disks have it."""
    touched, waited = replies
    local, replicas = waited if isinstance(waited, list) else (1, waited)
    refused = isinstance(touched, REFUSAL) or isinstance(waited, REFUSAL)
    return not refused and bool(local) and replicas >= settings().redis_wait_replicas


def unconfirmed(confirmation: list[Any], replies: list[Any]) -> UnconfirmedError:
    """Return the error of calls that have these replies, and were not confirmed by the replies to `commands`."""
    places = [f"{settings().redis_wait_replicas} replicas"] if settings().redis_wait_replicas else []
    places += ["the disk of Redis"] if settings().redis_wait_fsync else []
    error = UnconfirmedError(
        f"This is saved, but not on {' and '.join(places)} within {seconds()} s, so a failover may lose it. "
        "A submission that is repeated with the same Idempotency-Key makes no second job.",
        replies,
    )
    error.__cause__ = next((reply for reply in confirmation if isinstance(reply, REFUSAL)), None)
    return error


def seconds() -> int:
    """Return how long a confirmation may take."""
    return DISK_SECONDS if settings().redis_wait_fsync else REPLICA_SECONDS
