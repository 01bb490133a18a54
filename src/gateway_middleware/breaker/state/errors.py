"""Why no deployment can take a call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.core.errors import UnavailableError

if TYPE_CHECKING:
    from gateway_middleware.core.domain import HeaderList

_MAX_RETRY_AFTER = 60.0


class CircuitOpenError(UnavailableError):
    """The breaker of what would take this call is open."""

    code = "circuit_open"

    @property
    def headers(self) -> HeaderList:
        """Official SDKs retry a 503 by themselves: not when that is of no use for a minute."""
        return [(b"x-should-retry", b"false")] if (self.retry_after or 0.0) > _MAX_RETRY_AFTER else []


class CoolingDownError(UnavailableError):
    """Every provider that could take this call is left alone: it asked for time, or refuses the gateway itself.

    `error_code` names the class of what no time heals: `provider_auth`, `quota_exhausted`.
    """

    code = "provider_cooling_down"
