"""Times as RFC 3339 writes them."""

from datetime import datetime
from typing import Annotated

import msgspec

_Time = Annotated[datetime, msgspec.Meta(tz=True)]


def seconds(text: str) -> float:
    """Return the seconds since the epoch that a time, as 2026-11-26T10:00:00Z, stands for.

    Raises:
        ValueError: the text is no time, or one without its offset from UTC.
    """
    try:
        return msgspec.convert(text, _Time).timestamp()
    except (msgspec.ValidationError, OverflowError) as error:
        raise ValueError(f"{text[:40]!r} is no time") from error
