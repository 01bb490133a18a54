"""Reads `GATEWAY_PRICES`: prices of deployments in dollars per million tokens."""

from __future__ import annotations

import msgspec

from gateway_middleware.core.price import Price, parse_price
from gateway_middleware.settings.node import Node


def read_prices(node: Node) -> tuple[tuple[str, Price], ...]:
    """Prices by `provider/model`."""
    prices = []
    for key, entry in node.structured().entries().items():
        if "/" not in key:
            entry.faults.add(entry.place, 'expected the name of a deployment, "provider/model"')
        price = _read(entry)
        if price is not None:
            prices.append((key, price))
    return tuple(prices)


def _read(node: Node) -> Price | None:
    if not isinstance(node.raw, dict):
        node.fault("expected an object with `input` and `output` in dollars per million tokens")
        return None
    members = node.members(Price.__struct_fields__)
    try:
        return parse_price({name: member.raw for name, member in members.items()})
    except (ValueError, msgspec.MsgspecError) as error:
        node.faults.add(node.place, f"expected a price: {ascii(str(error))[1:-1]}")
        return None
