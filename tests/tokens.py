"""Tokens of callers, and API_TOKENS that names them."""

import hashlib

READER, WRITER, OTHER = "token-of-a-reader", "token-of-a-writer", "token-of-another"


def entry(name: str, scope: str, token: str) -> str:
    return f"{name}:{scope}:{hashlib.sha256(token.encode()).hexdigest()}"


TOKENS = f"{entry('rita', 'read', READER)}, {entry('walt', 'write', WRITER)}\n{entry('olga', 'write', OTHER)}"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
