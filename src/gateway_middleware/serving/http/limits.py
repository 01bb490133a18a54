"""The bounds of the HTTP protocol."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from gateway_middleware.core.pace import MIN_BODY_RATE


class HalfClose(StrEnum):
    """What the end of input from a client means while it waits for an answer.

    LEAVE: the client has left. ALLOW: it still wants its answer; that it left is then noticed
    at the first failed write.
    """

    LEAVE = "leave"
    ALLOW = "allow"


class DoorLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one client, and all of them together, may take. Times are seconds.

    `head_seconds`: from the first byte of a request (for the first one: from the connection) to the end of its head.
    `body_seconds`: the time over which a body must come with at least `min_body_rate` bytes per second; only time in
    which the application waits for it counts. It is also how long a client may take no byte of an answer that is
    complete. `idle_seconds`: of a connection between two requests. `linger_seconds` and `linger_bytes`: how long is
    still read and thrown away after an answer that came before the end of its request, and how much of that request is
    read in all (at least 64 KiB after the answer). Clients that send everything before they read see the answer only if
    their request fits: let it be what the application takes of a body, and a little more.
    `max_head_bytes` holds for the trailers and for the extensions of chunks of a request as well.
    `max_connections` and `max_bodies_bytes` are of the process; the latter counts what was received of requests that
    have not ended. `max_unread_bytes` and `max_unsent_bytes` are of one connection: above them reading from, and
    sending to, the client is paused.
    """

    head_seconds: float = 10.0
    body_seconds: float = 30.0
    min_body_rate: int = MIN_BODY_RATE
    idle_seconds: float = 75.0
    linger_seconds: float = 1.0
    linger_bytes: int = 64 * 1024
    max_head_bytes: int = 64 * 1024
    max_headers: int = 100
    max_connections: int = 10_000
    max_bodies_bytes: int = 256 * 1024 * 1024
    max_unread_bytes: int = 32 * 1024
    max_unsent_bytes: int = 32 * 1024
    half_close: HalfClose = HalfClose.LEAVE
