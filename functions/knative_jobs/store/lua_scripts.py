"""The Lua scripts: their texts, and how they are called."""

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from knative_jobs.runtime.settings import settings

TOUCH = "touch"
"""The script that writes something and changes nothing."""
SHARED = ("prelude", "render", "finding", "standing")
"""The files of `lua/` that are no scripts: what scripts share."""
KEY = "jobs"
"""The key that each call declares. It is never there; all keys of an installation are in its Redis Cluster slot."""
_LUA = Path(__file__).with_name("lua")

Command = tuple[Any, ...]


def load(name: str) -> Command:
    """Return the command that makes Redis know a script."""
    return ("SCRIPT", "LOAD", script(name).text)


def evalsha(name: str, *args: Any) -> Command:
    """Return the command that runs a script with these arguments."""
    return ("EVALSHA", script(name).sha, 1, key(), *args)


def key() -> str:
    """Return the key that each call declares, with the prefix of all keys."""
    return settings().redis_key_prefix + KEY


class Script(NamedTuple):
    """A script as Redis gets it."""

    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """Return a script, after those blocks of the shared files that it uses, directly or not."""
    text = (_LUA / f"{name}.lua").read_text()
    for block in reversed(_shared_blocks()):
        names = re.findall(r"\w+", re.findall(r"^local (?:function )?([\w, ]+)", block, re.MULTILINE)[0])
        if re.search(rf"\b({'|'.join(names)})\b", re.sub("--.*", "", text)):
            text = f"{block}\n\n{text}"
    text = f"local PREFIX = '{settings().redis_key_prefix}'\n\n{text}"
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


@cache
def _shared_blocks() -> list[str]:
    blocks = "\n\n".join((_LUA / f"{part}.lua").read_text() for part in SHARED).split("\n\n")
    return [block for block in blocks if re.search("^local ", block, re.MULTILINE)]
