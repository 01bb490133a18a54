"""The numbers of a provider's circuit breakers."""

from __future__ import annotations

from typing import Any

from gateway_middleware.settings import scalars
from gateway_middleware.settings.node import Node
from gateway_middleware.settings.tree import BreakerNumbers

_COUNTS = frozenset({"consecutive", "min_calls", "probe_successes"})
_RATIOS = frozenset({"failure_ratio", "slow_ratio"})
_BASE, _CAP = 10.0, 300.0


def read_breaker(node: Node | None) -> BreakerNumbers:
    """Those that are named; all others stay as they are by default."""
    if node is None:
        return BreakerNumbers()
    members = node.members(BreakerNumbers.__struct_fields__)
    found: dict[str, Any] = {name: _number(name, member) for name, member in members.items()}
    if found.get("open_cap", _CAP) < found.get("open_base", _BASE):
        node.fault("expected open_cap not below open_base (by default 300 and 10)")
    return BreakerNumbers(**found)


def _number(name: str, node: Node) -> float:
    if name in _COUNTS:
        return scalars.integer(node, 1, 1000)
    return scalars.ratio(node) if name in _RATIOS else scalars.seconds(node)
