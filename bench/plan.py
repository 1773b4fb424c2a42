"""What is measured, in this order, and in how many of the rounds."""

from bench import bulk, confirmation, growth, measures
from bench.measures import Effort

ALL = {
    "submission": measures.submission,
    "drain": measures.drain,
    "slow-drain": measures.slow_drain,
    "lists": measures.lists,
    "cold-start": measures.cold_start,
    "waiting": measures.waiting,
    "confirmation": confirmation.confirmation,
    "bulk": bulk.bulk,
    "concurrency": growth.concurrency,
    "backlog": growth.backlog,
    "redis-use": growth.redis_use,
}
GROWTH = {"concurrency", "backlog", "redis-use"}
OF_OURS_ALONE = {"confirmation", "bulk", *GROWTH}


def rounds_of(name: str, effort: Effort) -> float:
    """Return in how many of the rounds this is measured. What takes long and hardly varies is in some alone."""
    return effort.list_rounds if name == "lists" else effort.growth_rounds if name in OF_OURS_ALONE else float("inf")
