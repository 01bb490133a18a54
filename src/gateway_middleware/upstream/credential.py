"""Credentials that are no constant header: tokens that end, the caller's own, signatures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from gateway_middleware.core.domain import ModelRequest
    from gateway_middleware.core.provider_api import UpstreamRequest
    from gateway_middleware.upstream.exchange import Answer

    Open: TypeAlias = "Callable[[UpstreamRequest], Awaitable[Answer]]"
    """Sends a request as it is."""


class UpstreamCredential(Protocol):
    """Says to a provider who calls."""

    def open(
        self, upstream: UpstreamRequest, request: ModelRequest | None, first: Open, again: Open
    ) -> Awaitable[Answer]:
        """Send a request by `first`, with the credential; once more by `again` where another one may help.

        `request` is the client's; None: the gateway itself asks. Raises as these do, and `UpstreamError` where there is
        no credential.
        """
        ...
