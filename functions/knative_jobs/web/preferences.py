"""What a client prefers (RFC 7240): `Prefer: wait=10`, `Prefer: respond-async`. What cannot be done is ignored."""

from typing import NamedTuple

from flask import Request
from werkzeug.http import parse_list_header

from knative_jobs.jobs.follow import MAX_WAIT_SECONDS

APPLIED = "Preference-Applied"


class Preferences(NamedTuple):
    """How a client wants to be answered."""

    wait_s: int = 0
    """How many seconds it is willing to wait for the end of the job, up to MAX_WAIT_SECONDS."""
    respond_async: bool = False
    """Whether it asked for 202 rather than for a late answer."""


def preferences(request: Request) -> Preferences:
    """Return what the header Prefer says. Of a preference that is there twice the first counts."""
    if not (header := request.environ.get("HTTP_PREFER")):
        return Preferences()
    found: dict[str, str] = {}
    for preference in parse_list_header(header):
        name, _, value = preference.partition(";")[0].partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    wait = found.get("wait", "")
    wait_s = min(int(wait), MAX_WAIT_SECONDS) if wait.isascii() and wait.isdigit() and len(wait) < 10 else 0
    return Preferences(wait_s, "respond-async" in found)
