"""The operator's orders as all replicas number them: each is carried out once, in the order of the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec


class SharedOrder(msgspec.Struct, frozen=True):
    """A command for a breaker, with the one who gave it."""

    key: str
    command: str
    reason: str = ""
    actor: str = ""


class NumberedOrder(msgspec.Struct, frozen=True, array_like=True):
    """An order with its generation; `ends` is in milliseconds of the clock of Redis."""

    generation: int
    ends: int
    order: SharedOrder


_decoder = msgspec.json.Decoder(NumberedOrder)
_encoder = msgspec.json.Encoder()


class OrderBook:
    """What has been carried out, and what of it still stands."""

    def __init__(self) -> None:
        self.known = 0
        """All orders up to this generation are carried out."""
        self._standing: dict[str, NumberedOrder] = {}

    def hear(self, orders: Sequence[NumberedOrder]) -> list[NumberedOrder] | None:
        """Those that are to be carried out now; None when one before them has been missed."""
        new = sorted((o for o in orders if o.generation > self.known), key=lambda order: order.generation)
        if new and new[0].generation != self.known + 1:
            return None
        return self._take(new)

    def read(self, values: Iterable[bytes], generation: int) -> list[NumberedOrder]:
        """All that stands at `generation`; returns those that are to be carried out now."""
        found = [order for value in values if (order := decode(value)) is not None]
        new = self._take(sorted((o for o in found if o.generation > self.known), key=lambda order: order.generation))
        self.known = max(self.known, generation)
        return new

    def take_own(self, order: NumberedOrder, before: int) -> bool:
        """An order of this replica, which has carried it out already; False when another one came in between."""
        if self.known != before or order.generation != before + 1:
            return False
        self._take([order])
        return True

    def standing(self, now: int) -> list[NumberedOrder]:
        """What has not ended at `now`, in milliseconds."""
        self._standing = {key: order for key, order in self._standing.items() if order.ends > now}
        return list(self._standing.values())

    def _take(self, orders: list[NumberedOrder]) -> list[NumberedOrder]:
        for numbered in orders:
            self.known = numbered.generation
            self._standing[numbered.order.key] = numbered
        return orders


def decode(value: bytes) -> NumberedOrder | None:
    """None for what this version does not understand."""
    try:
        return _decoder.decode(value)
    except msgspec.MsgspecError:
        return None


def encode(order: NumberedOrder | SharedOrder) -> bytes:
    """As it stands in Redis."""
    return _encoder.encode(order)
