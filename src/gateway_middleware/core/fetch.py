"""What parts need of HTTP for calls of their own: one request, one bounded answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec


class Fetched(msgspec.Struct, frozen=True):
    """An answer, whatever its status. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class FetchError(Exception):
    """No answer: no connection, none in time, one that is too large. The text names neither address nor credential."""


class Fetch(Protocol):
    """Sends one request and reads all of its answer.

    Redirects are not followed. `deadline` is in seconds and for all of it; `max_bytes` bounds the answer. Raises
    `FetchError`.
    """

    async def __call__(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        deadline: float,
        max_bytes: int,
    ) -> Fetched: ...
