"""What an operator has ordered, for breakers that do not exist yet."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Command(StrEnum):
    """The last part of `/v1/admin/circuit-breakers/{key}/...`."""

    RESET = "reset"
    FORCE_OPEN = "force-open"
    FORCE_CLOSE = "force-close"
    AUTO = "auto"


FORCES = frozenset({Command.FORCE_OPEN, Command.FORCE_CLOSE})


class Order(msgspec.Struct, frozen=True):
    """A command that holds until a moment of the monotonic clock."""

    command: Command
    until: float


class StandingOrders:
    """Orders by provider (`openai`) and by deployment (`openai/gpt-5`). The narrower one holds, if it is the later."""

    __slots__ = ("_orders",)

    def __init__(self) -> None:
        self._orders: dict[str, Order] = {}

    def note(self, key: str, order: Order) -> None:
        """Remember an order. One for a provider ends those for its deployments."""
        provider, _, model = key.partition("/")
        if not model:
            self._orders = {name: kept for name, kept in self._orders.items() if not name.startswith(f"{key}/")}
        wider = self._orders.get(provider) if model else None
        if order.command in FORCES:
            self._orders[key] = order
        elif wider is not None:
            self._orders[key] = Order(Command.AUTO, wider.until)
        else:
            self._orders.pop(key, None)

    def find(self, deployment: str, now: float) -> Order | None:
        """The force that a new breaker of this deployment begins with."""
        order = self._orders.get(deployment) or self._orders.get(deployment.partition("/")[0])
        return order if order is not None and order.command in FORCES and order.until > now else None
