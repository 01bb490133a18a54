"""Tracing, where it is switched on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.middleware import Middleware

from gateway_middleware.core.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from gateway_middleware.composition.config import LiveConfig


def telemetry_layers(live: LiveConfig, tracer_provider: TracerProvider | None) -> list[Middleware]:
    """The layer that traces calls, or none. Raises `SettingsError` without the package."""
    if live.settings.tracing == "off":
        return []
    from gateway_middleware.telemetry.middleware import TelemetryMiddleware

    try:
        import opentelemetry.trace  # noqa: F401  # said here, not at the first call
    except ImportError:
        raise SettingsError(["GATEWAY_TRACING: needs the extra otel: pip install 'gateway-middleware[otel]'"]) from None
    return [
        Middleware(
            TelemetryMiddleware,
            providers=live.providers,
            tracer_provider=tracer_provider,
            captures_content=live.settings.tracing == "content",
        )
    ]
