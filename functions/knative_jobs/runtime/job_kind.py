"""The name of a kind of job."""

import re

BULK = "bulk-operation"
"""The kind of the jobs that are bulk operations. They are made by those alone, and done by a function of this API."""
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


def is_name(text: str) -> bool:
    """Tell whether a text can be the name of a kind. It is part of a Service's name, so it is a DNS label."""
    return bool(_NAME.fullmatch(text))


def check(text: str) -> None:
    """Raise a ValueError, whose message says what is wrong, if the text cannot be the name of a kind."""
    if not is_name(text):
        raise ValueError(f"has {text!r}; a kind is 1 to 63 small letters, digits and hyphens, a letter first")
