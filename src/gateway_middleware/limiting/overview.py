"""How all limits of a tenant stand, for `GET /v1/usage`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway_middleware.limiting.limit import Standing, Unit

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Tenant
    from gateway_middleware.limiting.quota import Quotas
    from gateway_middleware.limiting.reservation import Limiter

_DOLLAR = 1e6


async def overview(quotas: Quotas, limiter: Limiter, tenant: Tenant) -> list[dict[str, Any]]:
    """A row for each limit. Nothing is taken. Spend is in dollars, times are seconds."""
    claims = quotas.overview(tenant)
    if not claims:
        return []
    decision = await limiter.decide(claims, is_dry=True)
    return [_row(standing) for standing in decision.standings]


def _row(standing: Standing) -> dict[str, Any]:
    limit = standing.claim.limit
    scale = _DOLLAR if limit.unit is Unit.SPEND else 1
    return {
        "name": limit.name,
        "unit": limit.unit.value,
        "limit": limit.amount / scale,
        "remaining": standing.remaining / scale,
        "used": (limit.amount - standing.remaining) / scale,
        "period": limit.period or None,
        "reset_after": round(standing.reset_after, 3),
        "is_shadow": limit.is_shadow,
        "scope": standing.claim.key.partition("}")[2].strip(":").rpartition(":")[0] or "tenant",
    }
