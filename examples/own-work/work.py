"""What this repository's jobs do."""

import csv
import io

from knative_jobs import Fail, Job


def totals(job: Job) -> dict[str, float]:
    """Return the total of each column of a table, which the input has as CSV with a line of names."""
    match job.input:
        case {"csv": str(text)}:
            rows = list(csv.DictReader(io.StringIO(text), restkey="", restval=""))
        case _:
            raise Fail('the input looks like {"csv": "a,b\\n1,2\\n3,4\\n"}')
    found: dict[str, float] = {}
    for number, row in enumerate(rows):
        job.progress(number / len(rows), f"row {number + 1}")  # here a cancelled job stops
        for name, value in row.items():
            try:
                found[name] = found.get(name, 0) + float(value)
            except (TypeError, ValueError):
                raise Fail(f"row {number + 1} has {value!r} in column {name!r}, which is no number") from None
    return found
