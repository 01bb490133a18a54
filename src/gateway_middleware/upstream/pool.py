"""The connections of one origin."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway_middleware.upstream.connection import Connection


class Pool:
    """`idle` holds those that wait for a request, the most recently used last; `open` all of them.

    `slots` is None, or one slot for each connection that may be in use. A connection is only made when none is idle,
    so that there are never more of them than slots.
    """

    __slots__ = ("idle", "open", "slots")

    def __init__(self, max_connections: int | None) -> None:
        self.idle: dict[Connection, None] = {}
        self.open: set[Connection] = set()
        self.slots = None if max_connections is None else asyncio.Semaphore(max_connections)

    def take(self, oldest: float) -> Connection | None:
        """The connection that was used last, unless it has been idle since `oldest`."""
        while self.idle:
            connection, _ = self.idle.popitem()
            if not connection.is_closing and (connection.idle_since or 0.0) > oldest:
                return connection
            connection.abort()
        return None

    def expire(self, oldest: float) -> None:
        """Close what has been idle since `oldest`."""
        for connection in list(self.idle):
            if (connection.idle_since or 0.0) > oldest:
                return
            del self.idle[connection]
            connection.abort()

    def forget(self, connection: Connection) -> None:
        """It is gone."""
        self.open.discard(connection)
        self.idle.pop(connection, None)

    def abort(self) -> None:
        """Close every connection, in use or not."""
        self.idle.clear()
        for connection in list(self.open):
            connection.abort()
