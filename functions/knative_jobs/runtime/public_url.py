"""PUBLIC_URL, read: the address under which clients reach all routes."""

import re

_URL = re.compile(r"https?://([\w.~-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?(/[\w.~/-]*)?", re.ASCII)


def check(text: str) -> None:
    """Check the setting.

    Raises:
        ValueError: it cannot be used.
    """
    if not _URL.fullmatch(text):
        raise ValueError(f"is {text!r}; it must be http://HOST or https://HOST, maybe with a path")
