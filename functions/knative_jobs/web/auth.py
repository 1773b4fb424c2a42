"""Who may call: bearer tokens (RFC 6750), of which only the SHA-256 is known here.

API_TOKENS has an entry `name:scope:SHA-256 of the token in hex` for each token, with spaces, commas or lines between
them. The scope `read` is for what is asked with GET, `write` for everything. Several tokens may have one name.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import NamedTuple

from knative_jobs.runtime.settings import InvalidSettingError

READ, WRITE = "read", "write"
_ENTRY = re.compile(r"([A-Za-z0-9._-]{1,64}):(read|write):([0-9a-f]{64})")
_CHALLENGE = 'Bearer realm="knative-jobs"'


class Caller(NamedTuple):
    """One token."""

    name: str
    scope: str
    digest: str


class RefusedError(Exception):
    """The caller may not do this. The message says what is missing, `challenge` says it to programs."""

    def __init__(self, status: HTTPStatus, message: str, challenge: str) -> None:
        super().__init__(message)
        self.status = status
        self.challenge = _CHALLENGE + challenge


def callers(text: str) -> tuple[Caller, ...]:
    """Return the entries of API_TOKENS.

    Raises:
        InvalidSettingError: one is not what it must be; the message does not show it, for it may be a token.
    """
    entries = text.replace(",", " ").split()
    found = [_ENTRY.fullmatch(entry) for entry in entries]
    if None in found:
        which = f"entry {found.index(None) + 1} of {len(entries)}"
        raise InvalidSettingError(
            f"API_TOKENS: {which} is not name:read:SHA256 or name:write:SHA256, in hex, lower case"
        )
    return tuple(Caller(*entry.groups()) for entry in found if entry)


def identify(known: Iterable[Caller], authorization: str, scope: str) -> Caller:
    """Return whose token the Authorization header has, when it may do what needs `scope`.

    How long this takes does not depend on how much of a token is right.

    Raises:
        RefusedError: there is no token, nobody has it, or its scope does not suffice.
    """
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        detail = "This needs a token: send the header Authorization: Bearer TOKEN."
        raise RefusedError(HTTPStatus.UNAUTHORIZED, detail, "")
    digest = hashlib.sha256(token.strip().encode()).hexdigest()
    found = [caller for caller in known if hmac.compare_digest(caller.digest, digest)]
    if not found:
        raise RefusedError(HTTPStatus.UNAUTHORIZED, "Nobody has this token (any more).", ', error="invalid_token"')
    if scope == WRITE and found[0].scope != WRITE:
        detail = f"The token {found[0].name} may only read; this needs one with the scope write."
        raise RefusedError(HTTPStatus.FORBIDDEN, detail, f', error="insufficient_scope", scope="{WRITE}"')
    return found[0]
