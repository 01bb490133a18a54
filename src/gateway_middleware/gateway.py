"""`Gateway`: its parts, its layers, its one life."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.middleware import Middleware
from starlette.routing import Mount, Router

from gateway_middleware.breaker.middleware import FailoverMiddleware
from gateway_middleware.breaker.peers.probe_leases import ProbeLeases
from gateway_middleware.composition.audit import Audit
from gateway_middleware.composition.breakers import Breakers
from gateway_middleware.composition.calls import Calls
from gateway_middleware.composition.catalog import ModelCatalog
from gateway_middleware.composition.config import LiveConfig, revealed
from gateway_middleware.composition.credentials import Credentials
from gateway_middleware.composition.expiries import KeyExpiries
from gateway_middleware.composition.fleet import build_fleet
from gateway_middleware.composition.fleet_status import FleetStatus
from gateway_middleware.composition.guards import Guards
from gateway_middleware.composition.key_admin import KeyAdmin
from gateway_middleware.composition.keys import RuntimeKeys
from gateway_middleware.composition.life import Life
from gateway_middleware.composition.limits import Limits
from gateway_middleware.composition.log import Log
from gateway_middleware.composition.metering import build_metering
from gateway_middleware.composition.model_lists import ModelLists
from gateway_middleware.composition.operator import Operations
from gateway_middleware.composition.peers import build_peers
from gateway_middleware.composition.plans import CallPlans
from gateway_middleware.composition.policy import build_policy
from gateway_middleware.composition.pricing import build_pricing
from gateway_middleware.composition.recent import Recent, telling
from gateway_middleware.composition.reload import Reload
from gateway_middleware.composition.reload_audit import ReloadAudit
from gateway_middleware.composition.revocations import Revocations
from gateway_middleware.composition.self_report import SelfReport
from gateway_middleware.composition.side_calls import SideCalls
from gateway_middleware.composition.stack import Innermost, LateStart, fold, make_routes
from gateway_middleware.composition.stats import Stats
from gateway_middleware.composition.status import Status
from gateway_middleware.composition.telemetry import telemetry_layers
from gateway_middleware.composition.tenants import Tenants
from gateway_middleware.composition.upstream import Upstream
from gateway_middleware.composition.watch import build_watch
from gateway_middleware.core.clocks import Clocks
from gateway_middleware.core.outbox import Outbox
from gateway_middleware.edge.middleware import EdgeMiddleware
from gateway_middleware.intake.middleware import IntakeMiddleware
from gateway_middleware.intake.paced_receive import BodyPaces
from gateway_middleware.limiting.middleware import CallLimitMiddleware
from gateway_middleware.metering.stream_cost.middleware import StreamCostMiddleware
from gateway_middleware.providers import KINDS
from gateway_middleware.tenancy.client_credential import client_credential_of
from gateway_middleware.tenancy.middleware import TenantMiddleware
from gateway_middleware.translation.counting import TokenCountMiddleware

if TYPE_CHECKING:
    import httpx
    from opentelemetry.trace import TracerProvider
    from starlette.applications import Starlette

    from gateway_middleware.composition.credentials import GivesTokens
    from gateway_middleware.composition.part import Part
    from gateway_middleware.core.asgi import Receive, Scope, Send
    from gateway_middleware.core.domain import ModelRequest
    from gateway_middleware.core.provider_api import ProviderKind
    from gateway_middleware.guard.rules import GuardRule
    from gateway_middleware.metering.journal.keeping import KeptBy
    from gateway_middleware.settings import Settings
    from gateway_middleware.tenancy.resolvers import TenantResolver
    from gateway_middleware.upstream.exchange import Exchange


class Gateway:
    """A Model Gateway: a plain ASGI application, to be mounted or served.

    `transport` is any `httpx.AsyncBaseTransport` to reach providers through (a mock, a proxy, mTLS) in place of the
    gateway's own engine, `exchange` the same by the engine's narrower protocol; `kinds` are the kinds of providers by
    name, as in `Settings.from_env`; `resolver` says who the caller is in place of the configured API keys; `reread`
    gives the settings of a reload, and has their files watched; `write_log` takes the bytes of access-log lines
    (default: standard output); `guards` see prompts and answers before those of the settings do; `keeper` says who
    keeps the journal in place of `GATEWAY_KEEPER`. Raises `SettingsError` for settings that cannot work together.
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
        guards: Sequence[GuardRule] = (),
        clocks: Clocks | None = None,
        credentials: Mapping[str, GivesTokens] | None = None,
        keeper: KeptBy | None = None,
    ) -> None:
        clocks = clocks or Clocks()
        self.config = LiveConfig(settings, kinds)
        self.log = Log(settings, write_log, scrub=self.config.scrub)
        self.recent = Recent(clocks, scrub=self.config.scrub)
        self.outbox = Outbox()  # a server whose protocol writes there too answers in the same step as the engine
        self._make_records(settings, clocks, resolver, transport, keeper)
        self._make_breakers(settings, clocks)
        self.credentials = Credentials(
            settings, self.config, clocks, fetch=self.side_calls.fetch, log=self.log, given=credentials or {}
        )
        self.upstream = Upstream(
            self.config,
            clocks,
            transport=transport,
            exchange=exchange,
            outbox=self.outbox,
            credentials=self.credentials.by_account,
            on_provider_error=telling(self.log.provider_error, self.recent.provider_error),
        )
        self.model_lists = ModelLists(settings, kinds, self.upstream.calls, clocks, log=self.log)
        self.guards = Guards(settings, guards, fetch=self.side_calls.fetch, log=self.log)
        self.calls = Calls()
        self._make_stats(settings, clocks)
        self._make_statuses(clocks)
        # In the order of their start; they stop in reverse, the log last.
        known = (self.log, self.config, self.fleet, self.keys)
        callers = (*known, self.side_calls, self.tenants, self.policy, self.guards)
        rooms = (self.upstream, self.limits, self.breakers, self.peers, self.stats, self.calls, self.plans)
        lists = (self.model_lists, self.fleet_status)
        made: tuple[Part, ...] = (
            *callers,
            self.pricing,
            self.metering,
            self.expiries,
            self.reload_audit,
            self.credentials,
        )
        parts: tuple[Part, ...] = (*made, *rooms, *lists)
        self.reloader = Reload(self.config, parts, reread=reread)
        self.operations = self._make_operations()
        self.parts: tuple[Part, ...] = (*parts, build_watch(settings, self.reloader, self.operations, clocks))
        self._life = Life(self.parts)
        endpoints = self._status.endpoints(self.operations, self.fleet_status.document)
        self.routes = make_routes(endpoints, self.upstream.dispatch)
        self.middleware = self._make_layers(settings, tracer_provider, clocks)
        router = Router(self.routes, lifespan=lambda _: self.lifespan())
        self.app = fold(self.middleware, Innermost(self.upstream.dispatch, router))

    def _make_records(
        self,
        settings: Settings,
        clocks: Clocks,
        resolver: TenantResolver | None,
        transport: httpx.AsyncBaseTransport | None,
        keeper: KeptBy | None,
    ) -> None:
        """Who the tenants are, what they may use, and what is written down of it."""
        self.fleet = build_fleet(settings, self.config, clocks)
        self.revocations = Revocations(self.fleet, self.log)
        self.keys = RuntimeKeys(settings, self.fleet, steps=self.config.made_steps)
        self.side_calls = SideCalls(settings, transport)
        self.tenants = Tenants(
            settings,
            resolver,
            revocations=self.revocations,
            keys=self.keys,
            owners=self.fleet.owners,
            clocks=clocks,
            fetch=self.side_calls.fetch,
            log=self.log,
        )
        fetch = self.side_calls.fetch
        self.policy = build_policy(settings, clocks, fetch=fetch, fleet=self.fleet, log=self.log)
        self.plans = CallPlans(self.revocations, self.keys)
        self.pricing = build_pricing(settings, self.config, clocks)
        self.metering = build_metering(
            settings,
            clocks,
            pricing=self.pricing,
            log=self.log,
            outbox=self.outbox,
            keeper=keeper,
            transport=transport,
        )
        audit = Audit(self.metering.audits, self.log, clocks)
        self.key_admin = KeyAdmin(self.keys, self.fleet, audit, clocks, has_resolver=resolver is not None)
        self.expiries = KeyExpiries(self.keys.stored, audit, clocks)
        self.reload_audit = ReloadAudit(self.metering.audits, clocks, host=self.fleet.process.host)
        self.limits = Limits(
            settings,
            clocks,
            log=self.log,
            pricing=self.pricing,
            keys=self.keys,
            on_budget=self.metering.note_budget,
        )

    def _make_breakers(self, settings: Settings, clocks: Clocks) -> None:
        leases = ProbeLeases(clocks.monotonic)
        self.breakers = Breakers(settings, self.config, clocks, gate=leases)
        self.peers = build_peers(settings, self.breakers, leases, clocks, fleet=self.fleet)

    def _make_stats(self, settings: Settings, clocks: Clocks) -> None:
        self.stats = Stats(
            settings,
            self.config,
            clocks,
            operator=self.breakers.operator,
            log=self.log,
            in_flight=self.calls.in_flight,
            collectors=[
                self.tenants,
                *self.policy.collectors(),
                *self.guards.collectors(),
                *self.limits.collectors(),
                *self.metering.collectors(),
                *self.upstream.collectors(),
            ],
        )
        for listener in (self.stats, self.log, self.recent):
            self.breakers.subscribe(listener)

    def _make_statuses(self, clocks: Clocks) -> None:
        """What this process says of itself, and what the fleet does."""
        self._status = Status(
            config=self.config,
            fleet=self.fleet,
            breakers=self.breakers.operator,
            limits=self.limits,
            metering=self.metering,
            peers=self.peers,
            stats=self.stats,
            tenants=self.tenants,
            revocations=self.revocations,
            keys=self.key_admin,
            policy=self.policy,
            catalog=ModelCatalog(self.config, self.model_lists, self.pricing),
            phase=lambda: self._life.phase,
            clock=clocks.monotonic,
            wall=clocks.wall,
        )
        report = SelfReport(
            config=self.config,
            breakers=self.breakers.operator,
            limits=self.limits,
            metering=self.metering,
            stats=self.stats,
            recent=self.recent,
            tenants=self.tenants,
            in_flight=self.calls.in_flight,
            health=self._status.health,
            phase=lambda: self._life.phase,
            journal=lambda: self.fleet.place_of(self.settings.journal),
            clock=clocks.monotonic,
        )
        self.fleet_status = FleetStatus(self.fleet, report, clocks)

    def _make_operations(self) -> Operations:
        return Operations(
            config=self.config,
            breakers=self.breakers.operator,
            peers=self.peers,
            fleet=self.fleet,
            reload=self.reloader,
            audit=self.reload_audit,
            log=self.log,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)

    @property
    def settings(self) -> Settings:
        """The configuration of the moment."""
        return self.config.settings

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Run the gateway's background work. A host application enters this in its own lifespan.

        On the way out everything is stopped that was started, each part even if another one fails. Raises
        `GatewayNotStartedError` for a gateway that cannot start, or was closed: make a new one.
        """
        try:
            await self._life.start()
            yield
        finally:
            await self._life.stop()

    def when_watched(self, tell: Callable[[], None]) -> None:
        """Have `tell` called whenever somebody asks for readiness: a server that is watched leaves late."""
        self._status.on_watched = tell

    def reload(self, settings: Settings | None = None) -> dict[str, Any]:
        """Take other settings while calls are in flight, in this process: all of them, or none.

        Without settings they are read again by `reread`. Returns `config_hash`, what `changed`, and what of that waits
        for a restart (`need_restart`). Raises `SettingsError`, and then nothing has changed.
        """
        return self.operations.reload_by_host(settings)

    def drain(self) -> None:
        """Tell readiness that the gateway is about to go; calls are still answered."""
        self._life.drain()

    async def aclose(self) -> None:
        """Stop what was started late, at the first call, because the host entered no `lifespan`."""
        await self._life.stop()

    def _make_layers(self, settings: Settings, tracers: TracerProvider | None, clocks: Clocks) -> list[Middleware]:
        """The stack, outermost layer first."""
        return [
            Middleware(
                EdgeMiddleware,
                access_log=self.log.lines,
                observe=self.stats.providers.observe,
                clock=clocks.monotonic,
                wall=clocks.wall,
                scrub=self.config.scrub,
                is_leaving=lambda: self._life.is_stopping,
                in_flight=self.calls.in_flight,
                price=self.pricing.of_answer,
            ),
            Middleware(LateStart, life=self._life),
            Middleware(
                TenantMiddleware,
                resolver=self.tenants.resolver,
                admin_token=revealed(settings.admin_token),
                metrics_token=revealed(settings.metrics_token),
            ),
            Middleware(
                IntakeMiddleware,
                table=lambda: self.config.table,
                max_body_bytes=settings.max_body_bytes,
                max_tenant_bodies_bytes=settings.max_tenant_bodies_bytes,
                paces=BodyPaces(settings.body_seconds, clock=clocks.monotonic),
                owners=self.tenants.owners,
                plans=self.plans.calls,
                end_user_header=settings.end_user_header,
                client_credential=client_credential_of,
            ),
            *self.policy.layers(),
            Middleware(StreamCostMiddleware, price=self.pricing.of_answer),
            *self.guards.layers(),
            *telemetry_layers(self.config, tracers),
            *self.metering.layers(
                self.limits.calls.estimator,
                heeds_entries=self.upstream.heeds_entries,
                labels_of=self.config.labels_of,
            ),
            Middleware(CallLimitMiddleware, limits=self.limits.calls, wall=clocks.wall),
            Middleware(TokenCountMiddleware, is_native=self.config.is_native, count=self._count_input),
            Middleware(
                FailoverMiddleware,
                failover=self.breakers.failover,
                hedge=self.breakers.hedge,
                sleep=clocks.sleep,
            ),
        ]

    def _count_input(self, request: ModelRequest) -> int:
        """The tokens of a prompt, as they are estimated for limits."""
        return self.limits.calls.estimator.estimate(request, "").input_tokens


def mount(app: Starlette, path: str, gateway: Gateway) -> None:
    """Mount a gateway into a Starlette or FastAPI application below `path`.

    The host's lifespan should enter `gateway.lifespan()`: Starlette runs no lifespan of mounted applications.
    """
    app.router.routes.append(Mount(path, app=gateway))
