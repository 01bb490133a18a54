"""The tenants of a configuration with their keys, as rooms know them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway_middleware.core.domain import Tenant
from gateway_middleware.tenancy.keys import TenantKey

if TYPE_CHECKING:
    from gateway_middleware.settings import Settings


def listed(settings: Settings) -> list[tuple[Tenant, Sequence[TenantKey]]]:
    """Every tenant with its keys."""
    return [
        (
            Tenant(name=t.name, models=t.models, require=t.require),
            [TenantKey(k.digest, k.name, k.expires) for k in t.keys],
        )
        for t in settings.tenants
    ]
