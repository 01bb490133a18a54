"""Calls that are signed, once the request is final."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway_middleware.core.domain import ModelRequest
    from gateway_middleware.core.provider_api import UpstreamRequest
    from gateway_middleware.upstream.credential import Open, UpstreamCredential
    from gateway_middleware.upstream.exchange import Answer


class SignedCredential:
    """Sends what `sign` makes of a request."""

    def __init__(self, sign: Callable[[UpstreamRequest], UpstreamRequest]) -> None:
        self._sign = sign

    def open(
        self, upstream: UpstreamRequest, request: ModelRequest | None, first: Open, again: Open
    ) -> Awaitable[Answer]:
        """See `UpstreamCredential`."""
        return first(self._sign(upstream))


if TYPE_CHECKING:
    _: type[UpstreamCredential] = SignedCredential
