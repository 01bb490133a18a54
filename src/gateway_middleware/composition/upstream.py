"""The way to the providers: the HTTP engine, the endpoint of model calls, and streams that are read on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from gateway_middleware.composition.part import Fixed
from gateway_middleware.metering.estimate import OutputEstimate
from gateway_middleware.operations.connection_metrics import ConnectionMetrics
from gateway_middleware.providers.failures import error_from
from gateway_middleware.upstream.bounded_calls import ProviderCalls
from gateway_middleware.upstream.dispatch import Dispatch
from gateway_middleware.upstream.drain import UsageDrain
from gateway_middleware.upstream.engine import Engine

if TYPE_CHECKING:
    import httpx
    from prometheus_client.registry import Collector

    from gateway_middleware.composition.config import LiveConfig
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.core.outbox import Outbox
    from gateway_middleware.upstream.credential import UpstreamCredential
    from gateway_middleware.upstream.dispatch import OnProviderError
    from gateway_middleware.upstream.exchange import Exchange


class Upstream(Fixed):
    """Reaches providers through `transport` or `exchange` where the host gives one, else through its own engine.

    The engine's requests leave by `outbox`, together with what else of this gateway does. `on_provider_error` hears of
    each failed attempt.
    """

    def __init__(
        self,
        config: LiveConfig,
        clocks: Clocks,
        *,
        transport: httpx.AsyncBaseTransport | None,
        exchange: Exchange | None,
        outbox: Outbox,
        credentials: Mapping[str, UpstreamCredential],
        on_provider_error: OnProviderError,
    ) -> None:
        engine: Engine | None = None
        if exchange is None:
            exchange = exchange_of(transport) if transport is not None else (engine := Engine(outbox=outbox))
        self._exchange = exchange
        self.heeds_entries = engine is not None
        """Whether a request leaves after its entry in the journal, though that waits for the end of the turn."""
        self.calls = ProviderCalls(exchange, credentials)
        """What the gateway itself asks of providers."""
        self._drain = UsageDrain()
        self.dispatch = Dispatch(
            providers=config.providers,
            exchange=self._exchange,
            recorded=engine,
            clock=clocks.monotonic,
            read_error=error_from,
            on_provider_error=on_provider_error,
            count_output=lambda surface, model: OutputEstimate(surface, model=model),
            usage_drain=self._drain,
            credentials=credentials,
            max_answer_bytes=config.settings.max_answer_bytes,
        )

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """On the way out every connection to a provider is closed."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._exchange.aclose)
            stack.push_async_callback(self._drain.aclose)
            yield

    def collectors(self) -> list[Collector]:
        """Metrics of the engine's connections; a transport of the host's has its own."""
        return [ConnectionMetrics(self._exchange)] if isinstance(self._exchange, Engine) else []


def exchange_of(transport: httpx.AsyncBaseTransport) -> Exchange:
    """The way through a transport of the host's. Imports httpx, which takes a tenth of a second, only for that."""
    from gateway_middleware.upstream.httpx_exchange import HttpxExchange

    return HttpxExchange(transport)
