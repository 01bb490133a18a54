"""Sums of tokens over many answers, field by field."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway_middleware.core.domain import Usage

FIELDS = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens")
_values = attrgetter(*FIELDS)


class UsageSums:
    """How many tokens there were of each field; what a provider does not tell counts as none."""

    __slots__ = ("sums",)

    def __init__(self) -> None:
        self.sums = dict.fromkeys(FIELDS, 0)

    def add(self, usages: Iterable[Usage]) -> None:
        """Count those of several answers."""
        for field, column in zip(FIELDS, zip(*map(_values, usages), strict=True), strict=False):
            self.sums[field] += sum(filter(None, column))
