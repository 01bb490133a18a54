"""The numbers of a provider's circuit breakers."""

from __future__ import annotations

from typing import Any

from gateway_middleware.breaker.state.policy import BreakerPolicy
from gateway_middleware.settings import scalars
from gateway_middleware.settings.node import Node
from gateway_middleware.settings.tree import BreakerNumbers

_COUNTS = frozenset({"consecutive", "min_calls", "probe_successes"})
_RATIOS = frozenset({"failure_ratio", "slow_ratio"})
_DEFAULTS = BreakerPolicy()


def read_breaker(node: Node | None) -> BreakerNumbers:
    """Those that are named; all others stay as they are by default."""
    if node is None:
        return BreakerNumbers()
    members = node.members(BreakerNumbers.__struct_fields__)
    numbers: dict[str, Any] = {name: _number(name, member) for name, member in members.items()}
    cap, base = numbers.get("open_cap", _DEFAULTS.open_cap), numbers.get("open_base", _DEFAULTS.open_base)
    if cap < base:
        by_default = f"by default {_DEFAULTS.open_cap:g} and {_DEFAULTS.open_base:g}"
        node.fault(f"expected open_cap not below open_base ({by_default})")
    return BreakerNumbers(**numbers)


def _number(name: str, node: Node) -> float:
    if name in _COUNTS:
        return scalars.integer(node, 1, 1000)
    return scalars.ratio(node) if name in _RATIOS else scalars.seconds(node)
