"""Connections to that node of a Redis Cluster which has our keys: all are in one slot, by the tag of their prefix.

Each connection that is made asks a node for the slot, and goes where the answer sends it, as redis-py's own client for
a cluster does. That client sends each command by itself, on connections of its own; here, commands that belong together
go out in one piece, on a connection that is watched.

While the keys of the slot are moved to another node one by one, a script would find half of them here and half there.
The key that each call names is never there, so the old node answers ASK to every call, whatever the slot still has, and
the new one sends us back to it. ASK is not followed: no script runs until all keys have moved.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import redis
import redis.asyncio

NODE_SECONDS = 0.5
"""How long a node may take; then the next is asked."""
_NO_SCRIPT = "0" * 40
"""The SHA-1 of no script: the node that has the slot of the key says that it does not know it."""

Node = tuple[str, int]


class Slot:
    """The slot of a key, and which node had it last."""

    def __init__(self, key: str, nodes: Sequence[Node]) -> None:
        self.question = ("EVALSHA", _NO_SCRIPT, 1, key)
        """What is asked of a node. Every user that may call scripts may ask it."""
        self.nodes = nodes
        self.last: tuple[Node, ...] = ()


class _Search:
    """How one connection finds the node that has the slot: from the one that had it last, or any that is known."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._to_ask = [*slot.last, *slot.nodes]
        self._asked: set[Node] = set()
        self._said: Exception | None = None

    def next_node(self) -> Node:
        """Return the node to ask next.

        Raises:
            redis.exceptions.ConnectionError: all have been asked, and none has the slot.
        """
        while self._to_ask:
            node = self._to_ask.pop(0)
            if node not in self._asked:
                self._asked.add(node)
                return node
        raise redis.exceptions.ConnectionError(f"no node of the cluster has the keys: {self._said}") from self._said

    def ends_at(self, node: Node, said: Exception | None) -> bool:
        """Tell from what it said whether the node has the slot; otherwise, go where it sends us."""
        self._said = said
        if isinstance(said, redis.exceptions.MovedError):
            self._to_ask.insert(0, (said.host or node[0], said.port))  # without a host, it is the same
        found = isinstance(said, redis.exceptions.NoScriptError)
        if found:
            self._slot.last = (node,)
        return found


class _Blocking:
    """What a connection of redis-py connects to, in the place of its own host and port."""

    def __init__(self, slot: Slot, **how: Any) -> None:
        self._slot = slot
        super().__init__(**how)

    def connect(self: Any) -> None:
        if self.is_connected:
            return
        search = _Search(self._slot)
        while not search.ends_at(node := search.next_node(), self._ask(node)):
            self.disconnect()

    def _ask(self: Any, node: Node) -> Exception | None:
        self.host, self.port = node
        try:
            super().connect()  # type: ignore[misc]
            self.send_command(*self._slot.question)
            self.read_response(timeout=NODE_SECONDS)
        except redis.exceptions.RedisError as error:
            return error
        return None


class _OnLoop:
    """The same for an event loop."""

    def __init__(self, slot: Slot, **how: Any) -> None:
        self._slot = slot
        super().__init__(**how)

    async def connect(self: Any) -> None:
        if self.is_connected:
            return
        search = _Search(self._slot)
        while not search.ends_at(node := search.next_node(), await self._ask(node)):
            await self.disconnect(nowait=True)

    async def _ask(self: Any, node: Node) -> Exception | None:
        self.host, self.port = node
        try:
            async with asyncio.timeout(NODE_SECONDS):
                await super().connect()  # type: ignore[misc]
                await self.send_command(*self._slot.question, check_health=False)
                await self.read_response()
        except (TimeoutError, redis.exceptions.RedisError) as error:
            return error
        return None


def connection_class(client: Any, tls: bool) -> type:
    """Return the class of connections to the node that has a Slot, which they are given as `slot`."""
    how = _OnLoop if client is redis.asyncio else _Blocking
    base = client.SSLConnection if tls else client.Connection
    return type(f"{base.__name__}ToSlot", (how, base), {})
