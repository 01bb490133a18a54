"""The log of the requests that the simulator received, and how many were under way at a time."""

from __future__ import annotations

from collections import deque

import msgspec

from gateway_middleware.core.domain import Clock, HeaderList


class Request(msgspec.Struct, kw_only=True):
    """One HTTP request as it came; header names in lower case."""

    connection: int
    method: str
    target: bytes
    headers: HeaderList
    body: bytes
    keeps_alive: bool


class Received(msgspec.Struct, kw_only=True):
    """One request in the log. Times are those of the simulator's clock.

    `finished_at`: when the answer, good or bad, was handed to the socket. `peer_closed_at`: when the peer closed before
    that. At most one of them is set.
    """

    at: float
    connection: int
    method: str
    target: str
    headers: HeaderList
    body: bytes
    provider: str = ""
    surface: str = ""
    model: str = ""
    status: int | None = None
    finished_at: float | None = None
    peer_closed_at: float | None = None

    @property
    def named_headers(self) -> dict[str, str]:
        """The headers by name; of a repeated one the last."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.headers}


class Counters(msgspec.Struct, kw_only=True):
    """Numbers since the start, or since `clear`."""

    requests: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    peer_closed: int = 0
    connections: int = 0
    open_connections: int = 0
    max_open_connections: int = 0


class RequestLog:
    """The last requests, and the counters. With `record` off only the counters are kept."""

    def __init__(self, clock: Clock, *, record: bool, capacity: int) -> None:
        self._clock = clock
        self._record = record
        self._entries: deque[Received] = deque(maxlen=capacity)
        self.counters = Counters()

    @property
    def entries(self) -> list[Received]:
        """Oldest first."""
        return list(self._entries)

    def begin(self, request: Request) -> Received:
        """A request is here."""
        entry = Received(
            at=self._clock(),
            connection=request.connection,
            method=request.method,
            target=request.target.decode("latin-1"),
            headers=request.headers,
            body=request.body,
        )
        if self._record:
            self._entries.append(entry)
        counters = self.counters
        counters.requests += 1
        counters.in_flight += 1
        counters.max_in_flight = max(counters.max_in_flight, counters.in_flight)
        return entry

    def finish(self, entry: Received) -> None:
        """The simulator is done with it."""
        self.counters.in_flight -= 1
        entry.finished_at = self._clock()

    def abandon(self, entry: Received) -> None:
        """The peer closed before the simulator was done."""
        self.counters.in_flight -= 1
        self.counters.peer_closed += 1
        entry.peer_closed_at = self._clock()

    def connect(self) -> int:
        """A connection was made; returns its number."""
        counters = self.counters
        counters.connections += 1
        counters.open_connections += 1
        counters.max_open_connections = max(counters.max_open_connections, counters.open_connections)
        return counters.connections

    def disconnect(self) -> None:
        """A connection has ended."""
        self.counters.open_connections -= 1

    def clear(self) -> None:
        """Forget the requests, and start the counters anew from what is going on now."""
        self._entries.clear()
        now = self.counters
        self.counters = Counters(
            in_flight=now.in_flight,
            max_in_flight=now.in_flight,
            connections=now.connections,
            open_connections=now.open_connections,
            max_open_connections=now.open_connections,
        )
