"""The key of a job: a word of the submitter's own, as the number of a customer, that jobs can be found by."""

import re

MAX_LENGTH = 255
WHAT = f"a string of 1 to {MAX_LENGTH} characters, none of them a control character"
_KEY = re.compile(rf"[^\x00-\x1f\x7f]{{1,{MAX_LENGTH}}}")


def is_key(text: str) -> bool:
    """Tell whether a text can be the key of a job. A control character in it would end it in an index."""
    return bool(_KEY.fullmatch(text))
