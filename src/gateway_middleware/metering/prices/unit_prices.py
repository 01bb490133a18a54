"""What a call may cost before it is made: input and output only, in whole micro-dollars."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_CEILING
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decimal import Decimal

    from gateway_middleware.metering.prices.prices import Tariff

_SCALE = 10**18
"""Parts of a micro-dollar in which a price of one token is a whole number; what is finer is rounded up."""


class UnitPrices:
    """The prices of one deployment from `begins` on (seconds since the epoch), for estimates.

    A dollar for a million tokens is a micro-dollar for one. Estimates are made for each call, so they are counted in
    whole numbers: the same figure as the exact price, rounded up.
    """

    __slots__ = ("_schedules", "begins")

    def __init__(self, begins: float, tariffs: Iterable[Tariff]) -> None:
        self.begins = begins
        self._schedules = [
            [
                (
                    start,
                    _scaled(rates.input),
                    None if rates.output is None else _scaled(rates.output),
                    _scaled(rates.fee),
                )
                for start, rates in tariff.schedule
            ]
            for tariff in tariffs
        ]

    def cost(self, input_tokens: int, output_tokens: int) -> int | None:
        """Micro-dollars, rounded up; None where no price is known."""
        for schedule in self._schedules:
            for start, taken, given, fee in schedule:
                if input_tokens > start:
                    if given is None and output_tokens:
                        break  # the next list may have a price for output
                    return -(-(taken * input_tokens + (given or 0) * output_tokens + fee) // _SCALE)
        return None


def _scaled(amount: Decimal) -> int:
    return int((amount * _SCALE).to_integral_value(ROUND_CEILING))
