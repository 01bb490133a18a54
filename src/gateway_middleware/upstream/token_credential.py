"""A bearer token for a provider: got once for all calls, renewed before it ends, used while no other can be got."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.bearer_token import Token, TokenFault
from gateway_middleware.core.errors import ProviderAuthError, UpstreamConnectError
from gateway_middleware.core.single_flight import SingleFlight

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Clock, ModelRequest
    from gateway_middleware.core.provider_api import UpstreamRequest
    from gateway_middleware.upstream.credential import Open
    from gateway_middleware.upstream.exchange import Answer

_MARGIN = 5.0
"""Seconds before its end in which a token is not sent any more: it has a way to go."""
_FIRST_RETRY, _MAX_RETRY = 1.0, 30.0
_UNAUTHORIZED = 401
_FORCED_INTERVAL = 10.0
"""Between two renewals of tokens that a provider refuses: it may be the account that is wrong, not the token."""


class TokenCredential:
    """Gives the token of the moment.

    `get` brings a new one, or the fault; it never raises. `wall` is seconds since the epoch, `clock` monotonic: a token
    has ended when either says so, and no step of the time of day puts off a renewal. `on_token` hears of each token,
    `on_fault` of each fault. A token is renewed in the background when 70 to 90 % of its life are over, by
    chance, so that workers do not all ask at once.
    """

    def __init__(
        self,
        get: Callable[[], Awaitable[Token | TokenFault]],
        *,
        wall: Clock,
        clock: Clock,
        random: Callable[[], float],
        on_token: Callable[[Token], None],
        on_fault: Callable[[TokenFault], None],
    ) -> None:
        self._get = get
        self._wall = wall
        self._clock = clock
        self._random = random
        self._on_token = on_token
        self._on_fault = on_fault
        self._flight: SingleFlight[None, Token | TokenFault] = SingleFlight()
        self._token: Token | None = None
        self._fault: TokenFault | None = None
        self._ends_at = self._renew_at = self._retry_at = 0.0
        self._forced_at = -math.inf
        self._failures = 0

    @property
    def current(self) -> Token | None:
        """The newest token."""
        return self._token

    async def token(self) -> str:
        """A token that lasts. Raises `UpstreamConnectError`, `ProviderAuthError`."""
        token, now = self._token, self._clock()
        if token is not None and now < self._ends_at - _MARGIN and self._wall() < token.expires - _MARGIN:
            if now >= self._renew_at and now >= self._retry_at:
                self._flight.start(None, self._work)
            return token.value
        if self._fault is not None and now < self._retry_at:
            raise _error(self._fault)
        return _value(await self._flight(None, self._work))

    async def renewed(self, refused: str) -> str | None:
        """Another token than this one, which the provider has refused; None: there is no better one.

        Raises as `token` does.
        """
        if self._token is not None and self._token.value != refused:
            return self._token.value
        now = self._clock()
        if not self._flight.is_under_way(None):
            if now < self._forced_at + _FORCED_INTERVAL:
                return None
            self._forced_at = now
        value = _value(await self._flight(None, self._work))
        return None if value == refused else value

    async def open(self, upstream: UpstreamRequest, request: ModelRequest | None, first: Open, again: Open) -> Answer:
        """Send a request by `first`, with a token; one that is refused is renewed, once, for `again`.

        Raises as these and `token` do.
        """
        token = await self.token()
        answer = await first(_bearing(upstream, token))
        if answer.status != _UNAUTHORIZED:
            return answer
        try:
            renewed = await self.renewed(token)
        except BaseException:
            answer.close()
            raise
        if renewed is None:
            return answer
        answer.close()
        return await again(_bearing(upstream, renewed))

    async def aclose(self) -> None:
        """Ask for nothing any more."""
        await self._flight.aclose()

    async def _work(self) -> Token | TokenFault:
        result = await self._get()
        now = self._clock()
        if isinstance(result, TokenFault):
            self._fault = result
            self._failures += 1
            self._retry_at = now + min(_MAX_RETRY, _FIRST_RETRY * 2 ** min(self._failures - 1, 8))
            self._on_fault(result)
            return result
        self._token, self._fault, self._failures, self._retry_at = result, None, 0, 0.0
        lasts = result.expires - self._wall()
        self._ends_at, self._renew_at = now + lasts, now + lasts * (0.7 + 0.2 * self._random())
        self._on_token(result)
        return result


def _bearing(request: UpstreamRequest, token: str) -> UpstreamRequest:
    signed = (*request.headers, (b"authorization", b"Bearer " + token.encode()))
    return msgspec.structs.replace(request, headers=signed)


def _value(result: Token | TokenFault) -> str:
    if isinstance(result, TokenFault):
        raise _error(result)
    return result.value


def _error(fault: TokenFault) -> ProviderAuthError | UpstreamConnectError:
    """A refusal speaks of the gateway's own identity, everything else of a service that is away."""
    if fault.is_refusal:
        return ProviderAuthError("The identity service refused the gateway's credential.")
    return UpstreamConnectError("The identity service gives the gateway no token for the provider.")
