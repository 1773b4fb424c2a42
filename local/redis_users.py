"""The users of Redis: the cluster's own, from `knative/base/redis/users.acl`, and those of one machine."""

import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from local import ROOT

TEMPLATE = ROOT / "knative" / "base" / "redis" / "users.acl"
FILE = "users.acl"
"""In the folder of Redis."""
API = "api"
"""The user of all public functions together, which are one process here."""
LOOK = "on nopass resetkeys resetchannels %R~* -@all +@read -@dangerous +command +info +ping +select +time"
"""What anybody on this machine may do with redis-cli, as `default`: look, and change nothing."""
OPENER = "opener"
"""Makes `default` that once Redis has loaded its data, for which `default` needs every right; then it is deleted."""
ADMIN = "on ~* &* +@all"


def rules() -> dict[str, str]:
    """Return what each user of the cluster may do, by name."""
    lines = (line.split(maxsplit=2) for line in TEMPLATE.read_text().splitlines() if line.startswith("user "))
    return {name: allowed for _, name, allowed in lines}


def write(folder: Path, admin_password: str = "") -> Mapping[str, str]:
    """Make up a password for each user, and write the file of them all; it has their SHA-256 alone.

    Args:
        folder: of Redis.
        admin_password: of a user `admin` who may do everything; empty: there is none.

    Returns:
        The passwords, by user.
    """
    users = rules() | {OPENER: "on +ping +acl|setuser +acl|deluser"}
    with_password = (name for name, allowed in users.items() if allowed.startswith("on") and "nopass" not in allowed)
    passwords = {name: secrets.token_hex(32) for name in with_password}
    if admin_password:
        users["admin"], passwords["admin"] = ADMIN, admin_password
    file = folder / FILE
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(acl(users, passwords))
    return passwords


def acl(users: Mapping[str, str], passwords: Mapping[str, str]) -> str:
    """Return an ACL file: https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/."""
    hashes = {name: f" #{hashlib.sha256(password.encode()).hexdigest()}" for name, password in passwords.items()}
    return "".join(f"user {name} {allowed}{hashes.get(name, '')}\n" for name, allowed in users.items())
