"""The calls under way, as the part of the gateway that stops first: they end while everything they need still works."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway_middleware.composition.part import Fixed
from gateway_middleware.edge.in_flight import InFlight

_LAST_WORDS_SECONDS = 1.0


class Calls(Fixed):
    """Cuts off what has not ended when the gateway stops: with an error in its dialect, metered as `shutdown`."""

    def __init__(self) -> None:
        self.in_flight = InFlight()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """On the way out no call is left."""
        try:
            yield
        finally:
            await self.in_flight.cut_off(_LAST_WORDS_SECONDS)
