"""What of the settings a keeper must know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.composition.keeper import KeeperConfig
from gateway_middleware.composition.keeper_prices import KeptPrices
from gateway_middleware.providers import KINDS

if TYPE_CHECKING:
    from gateway_middleware.settings import Settings


def index_uri(settings: Settings) -> str | None:
    """The Redis in which calls are told to all replicas; None: in none."""
    uri = settings.storage_uri.reveal()
    return None if uri.startswith("memory:") or not settings.usage_index_seconds else uri


def kept_prices(settings: Settings) -> KeptPrices:
    """What of these settings prices the calls of the dead."""
    vendors = {provider.name: getattr(KINDS.get(provider.kind), "price_id", None) for provider in settings.providers}
    return KeptPrices(dict(settings.prices), vendors)


def keeper_config(settings: Settings) -> KeeperConfig:
    """For the keeper of these."""
    token, kept = settings.usage_metering_token, kept_prices(settings)
    return KeeperConfig(
        journal=settings.journal,
        url=settings.usage_metering_url,
        token=None if token is None else token.reveal(),
        prices=kept.prices,
        vendors=kept.vendors,
        log_format=settings.log_format,
        event_source=settings.event_source,
        event_type=settings.event_type,
        event_schema=settings.event_schema,
        index=index_uri(settings),
        index_seconds=settings.usage_index_seconds,
    )
