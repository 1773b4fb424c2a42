"""REDIS_KEY_PREFIX: what the name of every key in Redis begins with.

A part of it in braces is its hash tag: a Redis Cluster puts all keys with the same one on one node.
https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags
"""

import re

_PLAIN = r"[A-Za-z0-9_.:/@+=-]"
_FORM = re.compile(rf"{_PLAIN}*(\{{{_PLAIN}+\}})?{_PLAIN}*")
_LONGEST = 100


def check(text: str) -> None:
    """Check a prefix. It becomes a part of scripts and of patterns, so nothing in it may have a meaning there.

    Raises:
        ValueError: it cannot be used.
    """
    if not _FORM.fullmatch(text) or len(text) > _LONGEST:
        raise ValueError(
            f"must be at most {_LONGEST} letters, digits and any of _ . : / @ + = - and may have one part in braces"
        )


def has_hash_tag(text: str) -> bool:
    """Tell whether all keys with this prefix are in one hash slot."""
    return "{" in text
