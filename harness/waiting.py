"""Waiting for what another process does."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(check: Callable[[], T], within_s: float, pause_s: float = 0.02) -> T:
    """Return the first true value of `check`, or its last one when there is none in time."""
    ends_at = time.monotonic() + within_s
    while not (value := check()) and time.monotonic() < ends_at:
        time.sleep(pause_s)
    return value
