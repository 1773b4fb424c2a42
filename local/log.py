"""Log lines on the terminal: the function's name in front, in its colour."""

import os
import sys
import zlib
from contextlib import suppress

MARK = "\x1e"
"""A process that serves many functions writes `MARK name MARK text`, to say whose line it is."""
_WIDTH = 15
_COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)
_COLOUR = sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def say(name: str, text: str) -> None:
    """Print a line of `name`'s log."""
    if text.startswith(MARK):
        _, name, text = text.split(MARK, 2)
    front = f"{name:>{_WIDTH}} |"
    if _COLOUR:
        front = f"\x1b[{_COLOURS[zlib.crc32(name.encode()) % len(_COLOURS)]}m{front}\x1b[0m"
    with suppress(OSError):  # a terminal that has gone is no reason to stop
        print(front, text, flush=True)
