"""The composition root: the one place where settings become parts and parts become the staircase."""

from __future__ import annotations

import contextlib
import logging
import time
from functools import reduce
from typing import TYPE_CHECKING

from starlette.middleware import Middleware
from starlette.routing import Mount, Route, Router

from gateway_middleware.breaker.hedge import Hedge
from gateway_middleware.breaker.middleware import CircuitBreakerMiddleware
from gateway_middleware.breaker.operator import Operator
from gateway_middleware.composition.assembly import make_failover, make_resolver, revealed
from gateway_middleware.composition.control import BreakerNews, Control, Live, OtherReplicas, make_sharing
from gateway_middleware.composition.limits import Limits
from gateway_middleware.composition.metering import OFF, Metering, metering_layer
from gateway_middleware.composition.pricing import CallPricing, make_book
from gateway_middleware.composition.status import Documents, Phase
from gateway_middleware.composition.telemetry import telemetry_layer
from gateway_middleware.core.endpoints import ENDPOINTS
from gateway_middleware.core.errors import GatewayNotStartedError
from gateway_middleware.edge.access_log import AccessLog
from gateway_middleware.edge.middleware import EdgeMiddleware
from gateway_middleware.intake.middleware import IntakeMiddleware
from gateway_middleware.intake.ownership import ResponseOwners
from gateway_middleware.limiting.middleware import RateLimitMiddleware
from gateway_middleware.metering.estimate import OutputEstimate
from gateway_middleware.operations.breaker_metrics import BreakerMetrics
from gateway_middleware.operations.call_metrics import CallMetrics
from gateway_middleware.operations.connection_metrics import ConnectionMetrics, LogMetrics
from gateway_middleware.operations.loop_lag import LoopLag
from gateway_middleware.operations.provider_stats import ProviderStats
from gateway_middleware.providers import KINDS
from gateway_middleware.providers.failures import error_from
from gateway_middleware.staircase import Innermost, StartGuard
from gateway_middleware.tenancy.middleware import TenantMiddleware
from gateway_middleware.upstream.dispatch import Dispatch
from gateway_middleware.upstream.drain import UsageDrain
from gateway_middleware.upstream.engine import Engine
from gateway_middleware.upstream.httpx_exchange import HttpxExchange

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    import httpx
    from opentelemetry.trace import TracerProvider
    from prometheus_client.registry import Collector
    from starlette.applications import Starlette

    from gateway_middleware.core.asgi import ASGIApp, Receive, Scope, Send
    from gateway_middleware.core.domain import Clock
    from gateway_middleware.core.provider_api import ProviderKind
    from gateway_middleware.operations.recent_stats import RecentStats
    from gateway_middleware.settings import Settings
    from gateway_middleware.tenancy.resolvers import TenantResolver
    from gateway_middleware.upstream.exchange import Exchange

_log = logging.getLogger("gateway_middleware")


class Gateway:
    """Everything a Model Gateway is made of, put together from settings and ports.

    A plain ASGI application, to be mounted or served. `transport` is any `httpx.AsyncBaseTransport` to reach providers
    through (a mock, a proxy, mTLS) in place of the gateway's own engine; `kinds` are the kinds of providers by name, as
    in `Settings.from_env`; `resolver` says who the caller is in place of the configured API keys; `write_log` takes the
    bytes of access-log lines (default: standard output).
    """

    def __init__(
        self,
        settings: Settings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        exchange: Exchange | None = None,
        kinds: Mapping[str, ProviderKind] = KINDS,
        resolver: TenantResolver | None = None,
        reread: Callable[[], Settings] | None = None,
        tracer_provider: TracerProvider | None = None,
        write_log: Callable[[bytes], None] | None = None,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
    ) -> None:
        self._live = live = Live(settings, kinds)
        self._tracer_provider = tracer_provider
        self._clock = clock
        self._wall = wall
        self._exchange: Exchange = exchange or (HttpxExchange(transport) if transport is not None else Engine())
        self._resolver = resolver or make_resolver(settings)
        self._owners = ResponseOwners(is_shared=len(settings.tenants) > 1 or resolver is not None)
        self._log = AccessLog(write_log, scrub=live.scrub) if write_log else AccessLog.to_fd(1, scrub=live.scrub)
        news, others = BreakerNews(self._log), OtherReplicas()
        self._sharing = news.sharing = make_sharing(settings, others, clock=clock, wall=wall)
        self._failover = make_failover(
            settings,
            live.providers,
            clock=clock,
            wall=wall,
            on_transition=news.transition,
            on_cooldown=news.cooldown,
            gate=None if self._sharing is None else self._sharing.gate,
        )
        self._operator = Operator(self._failover.registry, self._failover.cooldowns, mode=self._failover.mode)
        others.connect(self._failover, self._operator)
        self._pricing = CallPricing(
            make_book(settings), price_id_of=lambda name: live.providers[name].price_id, wall=wall
        )
        self._metering: Metering | None = None
        if settings.journal != OFF:
            self._metering = Metering(
                settings, pricing=self._pricing, log=self._log, clock=clock, wall=wall, transport=transport
            )
        self._limits = Limits(settings, log=self._log, clock=clock, wall=wall, pricing=self._pricing)
        self.control = Control(
            live,
            failover=self._failover,
            operator=self._operator,
            resolver=self._resolver,
            log=self._log,
            reread=reread,
            sharing=self._sharing,
            quotas=self._limits.calls.quotas,
            owners=self._owners,
        )
        self._call_metrics = CallMetrics(lambda: live.route_names)
        self._breaker_metrics = news.metrics = BreakerMetrics(
            lambda: self._operator.circuit_breakers(live.provider_names), lambda: live.deployment_keys
        )
        self._provider_stats = ProviderStats(
            providers=lambda: {name: live.providers[name] for name in live.provider_names},
            deployments=lambda: live.deployments,
            breakers=self._operator.status,
            observers=(self._call_metrics.observe, self._breaker_metrics.observe),
            clock=clock,
        )
        self.is_started = self._is_draining = self._is_closed = False
        self._usage_drain, self._lag = UsageDrain(), LoopLag()
        self._dispatch = Dispatch(
            providers=live.providers,
            exchange=self._exchange,
            clock=clock,
            read_error=error_from,
            on_provider_error=news.provider_error,
            count_output=lambda surface, model: OutputEstimate(surface, model=model),
            usage_drain=self._usage_drain,
        )
        self._documents = Documents(
            live=live,
            control=self.control,
            operator=self._operator,
            provider_stats=self._provider_stats,
            limits=self._limits,
            metering=self._metering,
            sharing=self._sharing,
            collectors=[self._call_metrics, self._breaker_metrics, self._lag, *self._more_metrics()],
            phase=self._phase,
            clock=clock,
        )
        self._routes = self._make_routes()
        self.staircase = self._compose()

    @property
    def settings(self) -> Settings:
        """The configuration of the moment."""
        return self._live.settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.staircase(scope, receive, send)

    @property
    def middleware(self) -> list[Middleware]:
        """The staircase, outermost first."""
        return [
            Middleware(StartGuard, gateway=self),
            Middleware(
                EdgeMiddleware,
                access_log=self._log,
                observe=self._provider_stats.observe,
                clock=self._clock,
                wall=self._wall,
                scrub=self._live.scrub,
            ),
            Middleware(
                TenantMiddleware,
                resolver=self._resolver,
                admin_token=revealed(self.settings.admin_token),
                metrics_token=revealed(self.settings.metrics_token),
            ),
            Middleware(
                IntakeMiddleware,
                table=lambda: self._live.table,
                max_body_bytes=self.settings.max_body_bytes,
                owners=self._owners,
            ),
            *telemetry_layer(self._live, self._tracer_provider),
            *metering_layer(
                self._metering,
                estimator=self._limits.calls.estimator,
                is_stopping=lambda: self._is_draining,
                wall=self._wall,
            ),
            Middleware(RateLimitMiddleware, calls=self._limits.calls, wall=self._wall),
            Middleware(CircuitBreakerMiddleware, failover=self._failover, hedge=Hedge(clock=self._clock)),
        ]

    @property
    def routes(self) -> list[Route]:
        """Every endpoint as a Starlette route, to go below `middleware`."""
        return list(self._routes)

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Run the gateway's background work. A host application enters this in its own lifespan.

        On the way out the log is written and every upstream connection is closed.
        """
        self._start()
        try:
            yield
        finally:
            await self.aclose()

    @property
    def recent_stats(self) -> RecentStats:
        """How each deployment did in the last minute."""
        return self._provider_stats.recent

    def flush_log(self) -> None:
        """Write the lines of the log that still wait."""
        self._log.flush()

    def drain(self) -> None:
        """Tell readiness that the gateway is about to go; calls are still answered."""
        self._is_draining = True

    async def aclose(self) -> None:
        """Close connections and write what the log holds. A closed gateway stays closed."""
        self._is_draining = self._is_closed = True
        self.is_started = False
        if self._sharing is not None:
            await self._sharing.aclose()
        self._lag.stop()
        if self._documents.workers is not None:
            await self._documents.workers.aclose()
        await self._limits.aclose()
        await self._usage_drain.aclose()
        await self._exchange.aclose()
        if self._metering is not None:
            await self._metering.aclose()
        self._log.close()

    def start_late(self) -> None:
        """Start at the first call, with a warning: the host did not enter `lifespan`."""
        self._start()
        _log.warning(
            "Model Gateway: the host application did not enter gateway.lifespan(); started at the first call. "
            "HINT: Starlette runs no lifespan of mounted apps: enter it in your own lifespan."
        )

    def _start(self) -> None:
        if self._is_closed:
            raise GatewayNotStartedError("This gateway was closed. HINT: make a new one for each application.")
        if self._sharing is not None and not self.is_started:
            self._sharing.start()
        self._limits.start()
        self._lag.start()
        if self._documents.workers is not None and not self.is_started:
            self._documents.workers.start()
        if self._metering is not None and not self.is_started:
            self._metering.start()
        self.is_started = True

    def _more_metrics(self) -> list[Collector]:
        connections = [ConnectionMetrics(self._exchange)] if isinstance(self._exchange, Engine) else []
        return [*connections, LogMetrics(lambda: self._log.dropped)]

    def _phase(self) -> Phase:
        if self._is_draining:
            return Phase.DRAINING
        return Phase.SERVING if self.is_started else Phase.STARTING

    def _compose(self) -> ASGIApp:
        innermost: ASGIApp = Innermost(self._dispatch, Router(routes=self._routes))
        return reduce(
            lambda app, layer: layer.cls(app, *layer.args, **layer.kwargs), reversed(self.middleware), innermost
        )

    def _make_routes(self) -> list[Route]:
        served = self._documents.endpoints()
        return [
            Route(e.path, endpoint=served[e.label] if e.surface is None else self._dispatch, methods=list(e.methods))
            for e in ENDPOINTS
        ]


def mount(app: Starlette, path: str, gateway: Gateway) -> None:
    """Mount a gateway into a Starlette or FastAPI application below `path`.

    The host's lifespan should enter `gateway.lifespan()`: Starlette runs no lifespan of mounted applications.
    """
    app.router.routes.append(Mount(path, app=gateway))
