"""`Settings`: the whole configuration, read and checked at once, every complaint collected."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import msgspec

from gateway_middleware.core.domain import Tenant, Translate
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.core.models import ModelOverride
from gateway_middleware.core.price import Price
from gateway_middleware.core.provider_api import ProviderKind
from gateway_middleware.core.secret import Secret
from gateway_middleware.core.sse import MAX_EVENT_BYTES
from gateway_middleware.intake.residency import meets
from gateway_middleware.providers import KINDS
from gateway_middleware.settings.faults import Faults
from gateway_middleware.settings.files import FilesRead, FileVersion
from gateway_middleware.settings.identity import complain_about_halves
from gateway_middleware.settings.node import Node
from gateway_middleware.settings.on_budget import complain_about_steps
from gateway_middleware.settings.providers import BUILT_IN, read_providers, ways_to_switch_on
from gateway_middleware.settings.routes import read_routes
from gateway_middleware.settings.scalars import host_of, is_loopback, port_of
from gateway_middleware.settings.sources import read_sources
from gateway_middleware.settings.tenants import read_tenants
from gateway_middleware.settings.tree import (
    GroupSettings,
    GuardSettings,
    ProviderSettings,
    RouteSettings,
    TenantSettings,
)
from gateway_middleware.settings.variables import VARIABLES
from gateway_middleware.tenancy.keys import TenantKey

_NAMES = [variable.name for variable in VARIABLES]
_OWN_PLACES = frozenset(
    {"GATEWAY_METRICS_DIRECTORY", "GATEWAY_FLEET_DIRECTORY", "GATEWAY_HOST", "GATEWAY_PORT", "GATEWAY_JOURNAL"}
)
"""What each server of a fleet may have for itself."""
_NO_PROVIDER = f"no provider: set {ways_to_switch_on()} (or GATEWAY_PROVIDERS)"
NO_TENANT = (
    "no tenant: list one with a key from `model-gateway keys new`, set GATEWAY_TENANT_HEADER or "
    "GATEWAY_JWT_ISSUER where somebody else knows them, or GATEWAY_OPEN=true to let every caller in"
)


class Settings(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The configuration. Limits are kept in their written notation.

    `given` names the variables that were set. `files` are those that were read, in the version that was read: the file
    of settings, and those of secrets and certificates.
    """

    providers: tuple[ProviderSettings, ...] = ()
    routes: tuple[RouteSettings, ...] = ()
    tenants: tuple[TenantSettings, ...] = ()
    is_open: bool = False
    key_secret: Secret | None = None
    tenant_header: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    tenant_header_secret: Secret | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    jwt_jwks_url: str | None = None
    jwt_tenant_claim: str = "tenant"
    jwt_algorithms: tuple[str, ...] = ("RS256",)
    policy_adapter_url: str | None = None
    policy_adapter_token: Secret | None = None
    policy_timeout_seconds: float = 1.0
    policy_allowed_seconds: float = 30.0
    policy_denied_seconds: float = 5.0
    policy_stale_seconds: float = 300.0
    policy_on_outage: str = "refuse"
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    max_body_bytes: int = 32 * 1024 * 1024
    max_answer_bytes: int = 64 * 1024 * 1024
    max_event_bytes: int = MAX_EVENT_BYTES
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    max_head_bytes: int = 64 * 1024
    max_headers: int = 100
    max_connections: int = 10_000
    max_bodies_bytes: int = 256 * 1024 * 1024
    max_tenant_bodies_bytes: int = 64 * 1024 * 1024
    half_close: str = "leave"
    drain_seconds: float = 30.0
    drain_lag_seconds: float = 3.0
    metrics_directory: str | None = None
    fleet_directory: str | None = None
    guards: tuple[GuardSettings, ...] = ()
    tracing: str = "off"
    log_format: str | None = None
    log_probes: bool = True
    metrics_token: Secret | None = None
    admin_token: Secret | None = None
    console: str = "on"
    default_requests: str | None = None
    default_tokens: str | None = None
    default_concurrency: int | None = None
    default_spend: str | None = None
    queue_seconds: float | None = None
    prices: tuple[tuple[str, Price], ...] = ()
    models: tuple[tuple[str, ModelOverride], ...] = ()
    storage_uri: Secret = Secret("memory://", source="default")
    replicas: int | None = None
    journal: str = "./gateway-journal.db"
    keeper: str = "auto"
    max_attempts: int = 3
    translation: Translate = Translate.ALLOW
    breaker: str = "on"
    usage_metering_url: str | None = None
    usage_metering_token: Secret | None = None
    groups: tuple[GroupSettings, ...] = ()
    end_user_header: str | None = None
    budget_events: bool = False
    audit_events: bool = True
    usage_index_seconds: float = 86400.0
    event_source: str = "/model-gateway"
    event_type: str = "gateway.llm.usage.v1"
    event_schema: str | None = None
    watch_seconds: float = 2.0
    given: tuple[str, ...] = ()
    files: tuple[FileVersion, ...] = ()

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        kinds: Mapping[str, ProviderKind] = KINDS,
        has_resolver: bool = False,
    ) -> Self:
        """Read the environment (default: that of the process) and the file `GATEWAY_CONFIG_FILE` names.

        An empty variable counts as not set. `kinds` are the kinds of providers that may be configured. `has_resolver`:
        they are for `Gateway(resolver=...)`, so that no tenant has to be known by them. Raises `SettingsError` with
        every complaint.
        """
        faults, files = Faults(), FilesRead()
        environment = dict(os.environ if environ is None else environ)
        with _no_collector():
            fields = _read(read_sources(environment, _NAMES, faults, files), faults, kinds, has_resolver=has_resolver)
        if faults:
            raise SettingsError(faults.lines(), files=files.versions())
        return cls(**fields, files=files.versions())

    @property
    def knows_tenants(self) -> bool:
        """Whether there is a way to know who calls: keys, a header, tokens, or keys that operators make."""
        is_left_to_operators = self.admin_token is not None and "GATEWAY_TENANTS" in self.given and not self.is_open
        return bool(self.tenants or self.tenant_header or self.jwt_issuer or is_left_to_operators)

    @property
    def config_hash(self) -> str:
        """Twelve hex digits that change when anything but a secret does. It says nothing about secrets.

        Nor about what each server has for itself: address, directories, the path of its journal (but whether it has
        one). So servers with the same configuration have one hash.
        """
        given = tuple(name for name in self.given if name not in _OWN_PLACES)
        shared = msgspec.structs.replace(
            self,
            metrics_directory=None,
            fleet_directory=None,
            host="",
            port=0,
            journal="off" if self.journal == "off" else "on",
            given=given,
            files=(),
        )
        content = msgspec.json.encode(shared, enc_hook=_source_only)
        return hashlib.sha256(content).hexdigest()[:12]

    @cached_property
    def listed(self) -> Sequence[tuple[Tenant, Sequence[TenantKey]]]:
        """Every tenant with its keys, as the rooms know them; made once."""
        return [(tenant.tenant, tenant.keys) for tenant in self.tenants]

    @property
    def fleet_path(self) -> str | None:
        """The directory in which the processes of this server tell each other what all must know, if there is one."""
        derived = None if self.journal == "off" else f"{self.journal}.fleet"
        return self.fleet_directory or derived

    @property
    def keeps_no_keys(self) -> bool:
        """Whether what operators make at run time is in memory only."""
        return self.fleet_path is None and self.storage_uri.reveal() == "memory://"

    @property
    def limits_spend(self) -> bool:
        """Whether any limit is one of spend."""
        has_own = any(tenant.limits_spend for tenant in self.tenants)
        has_own = has_own or any(group.limits.spend is not None for group in self.groups)
        return has_own or self.default_spend is not None or any(r.limits.spend is not None for r in self.routes)

    def warnings(self) -> tuple[str, ...]:
        """What works and may not be meant, one line each."""
        return tuple(_warnings(self))


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """What is read of a hundred thousand tenants is all kept: the collector would look at it again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read(
    nodes: Mapping[str, Node], faults: Faults, kinds: Mapping[str, ProviderKind], *, has_resolver: bool
) -> dict[str, Any]:
    fields: dict[str, Any] = {"given": tuple(name for name in _NAMES if name in nodes)}
    for variable in VARIABLES:
        node = nodes.get(variable.name)
        if node is not None and variable.read is not None and variable.field is not None:
            fields[variable.field] = variable.read(node)
    providers = _read_providers(nodes, faults, kinds)
    routes = read_routes(nodes.get("GATEWAY_ROUTES"), providers)
    complain_about_halves(nodes)
    has_others = has_resolver or "GATEWAY_TENANT_HEADER" in nodes or "GATEWAY_JWT_ISSUER" in nodes
    tenants = _read_tenants(nodes, faults, providers, has_others=has_others, is_open=fields.get("is_open", False))
    complain_about_steps(faults, routes, tenants, fields.get("groups", ()))
    return fields | {"providers": tuple(p for p in providers.values() if p), "routes": routes, "tenants": tenants}


def _read_providers(
    nodes: Mapping[str, Node], faults: Faults, kinds: Mapping[str, ProviderKind]
) -> dict[str, ProviderSettings | None]:
    before = len(faults)
    providers = read_providers(nodes, kinds)
    # Where the text could not be read, that nothing came of it is no second fault.
    if not providers and len(faults) == before:
        faults.add("GATEWAY_PROVIDERS", _NO_PROVIDER)
    return providers


def _read_tenants(
    nodes: Mapping[str, Node],
    faults: Faults,
    providers: Mapping[str, ProviderSettings | None],
    *,
    has_others: bool,
    is_open: bool,
) -> tuple[TenantSettings, ...]:
    """`has_others`: there are other ways to know a tenant than its keys. With an admin token keys may be made later."""
    before, has_secret = len(faults), "GATEWAY_KEY_SECRET" in nodes
    makes_keys = "GATEWAY_ADMIN_TOKEN" in nodes
    tenants = read_tenants(
        nodes.get("GATEWAY_TENANTS"),
        has_key_secret=has_secret,
        needs_keys=not has_others and not makes_keys,
        providers=providers,
    )
    is_left_open = makes_keys and "GATEWAY_TENANTS" in nodes
    if not tenants and not is_open and not has_others and not is_left_open and len(faults) == before:
        faults.add("GATEWAY_TENANTS", NO_TENANT)
    return tenants


def _source_only(secret: object) -> str:
    if isinstance(secret, Secret):
        return secret.source
    raise NotImplementedError(f"{type(secret).__name__} in the settings tree")


def _warnings(settings: Settings) -> Iterable[str]:
    if settings.is_open:
        reach = "this machine" if is_loopback(settings.host) else f"everybody who reaches {settings.host}"
        yield f"GATEWAY_OPEN: every caller is let in without a key, at the cost of your provider keys ({reach})"
    for provider in settings.providers:
        yield from _provider_warnings(provider, settings)
    for built_in in BUILT_IN.values():
        # An endpoint without its key has tokens, where there is no public one.
        if built_in.base_url in settings.given and built_in.api_key not in settings.given and not built_in.url_example:
            yield f"{built_in.base_url}: has no effect without {built_in.api_key}"
    yield from _trust_warnings(settings)
    for tenant in settings.tenants:
        if tenant.on_unpriced == "allow" and settings.limits_spend:
            yield f"tenant {tenant.name}: on_unpriced is allow: calls without a known price pass every limit on spend"
        yield from _credential_warnings(tenant, settings)
        if not any(meets(dict(provider.labels), tenant.require) for provider in settings.providers):
            yield f"tenant {tenant.name}: no provider has the labels that it requires: all its calls are refused"
    yield from _group_warnings(settings)
    yield from _plain_warnings(settings)
    if settings.workers > 1 and settings.storage_uri.reveal() == "memory://":
        yield (
            f"GATEWAY_STORAGE_URI: memory:// is not shared between {settings.workers} workers: each enforces one part "
            f"in {settings.workers} of every limit, and learns alone of failing providers; redis:// is exact"
        )
    if settings.replicas is None and settings.storage_uri.reveal() != "memory://":
        yield (
            "GATEWAY_REPLICAS: not given: a replica that starts while Redis cannot be reached takes the whole of every "
            "limit, for it knows of no other one"
        )
    if settings.max_bodies_bytes < settings.max_body_bytes:
        yield (
            f"GATEWAY_MAX_BODIES_BYTES: {settings.max_bodies_bytes} for all requests under way is less than "
            f"GATEWAY_MAX_BODY_BYTES, {settings.max_body_bytes}, for one"
        )
    if settings.max_tenant_bodies_bytes < settings.max_body_bytes:
        yield (
            f"GATEWAY_MAX_TENANT_BODIES_BYTES: {settings.max_tenant_bodies_bytes} for all requests of a tenant is less "
            f"than GATEWAY_MAX_BODY_BYTES, {settings.max_body_bytes}, for one"
        )


def _credential_warnings(tenant: TenantSettings, settings: Settings) -> Iterable[str]:
    """Credentials of a tenant that no call of it will carry."""
    labels = {provider.name: dict(provider.labels) for provider in settings.providers}
    client = tenant.client_provider
    for name in (*(name for name, _ in tenant.credentials), *(() if client is None else (client,))):
        if not meets(labels[name], tenant.require):
            yield f"tenant {tenant.name}: its credential at {name} is never sent: {name} has not the labels it requires"
    if client is not None and not tenant.keys and settings.admin_token is None:
        yield f"tenant {tenant.name}: callers bring their own credential beside x-gateway-key, and it has no keys"


def _group_warnings(settings: Settings) -> Iterable[str]:
    """Tenants that are only known by a header or a token need not be listed."""
    listed = {tenant.name for tenant in settings.tenants}
    if settings.tenant_header is None and settings.jwt_issuer is None:
        for group in settings.groups:
            unknown = ", ".join(tenant for tenant in group.tenants if tenant not in listed)
            if unknown:
                yield f"group {group.name}: GATEWAY_TENANTS does not list {unknown}"


def _plain_warnings(settings: Settings) -> Iterable[str]:
    """Neighbours that are reached without encryption."""
    sink, policy = settings.usage_metering_url, settings.policy_adapter_url
    if sink is not None and _is_plain(sink):
        yield f"GATEWAY_USAGE_METERING_URL: usage events and their token travel unencrypted to {sink}"
    if policy is not None and _is_plain(policy):
        yield f"GATEWAY_POLICY_ADAPTER_URL: questions, token and answers travel unencrypted to {policy}"
    for guard in settings.guards:
        if _is_plain(guard.url):
            yield f"guard {guard.name}: prompts, answers and its token travel unencrypted to {guard.url}"


def _is_plain(url: str) -> bool:
    return url.startswith("http:") and not is_loopback(host_of(url))


def _trust_warnings(settings: Settings) -> Iterable[str]:
    for network in settings.trusted_proxies:
        if network.endswith("/0"):
            yield f"GATEWAY_TRUSTED_PROXIES: {network} is everybody: only the secret tells a proxy from a client"
    if settings.policy_on_outage == "allow" and settings.policy_adapter_url is not None:
        yield "GATEWAY_POLICY_ON_OUTAGE: while the policy-adapter does not answer, every tenant's calls pass unchecked"
    if settings.admin_token is not None and settings.knows_tenants and settings.keeps_no_keys:
        yield "GATEWAY_JOURNAL: off, and memory://: keys that operators make are lost when the process ends"


def _provider_warnings(provider: ProviderSettings, settings: Settings) -> Iterable[str]:
    host = host_of(provider.base_url)
    if _is_plain(provider.base_url):
        yield f"provider {provider.name}: key and prompts travel unencrypted to {provider.base_url}"
    if provider.kind == "openai" and provider.base_url.count("/") == 2:
        yield f"provider {provider.name}: {provider.base_url} has no path; what OpenAI's SDK takes mostly ends in /v1"
    if is_loopback(host) and port_of(provider.base_url) == settings.port:
        yield f"provider {provider.name}: {provider.base_url} looks like this gateway itself"


def key_secret(environ: Mapping[str, str] | None = None) -> Secret | None:
    """`GATEWAY_KEY_SECRET` alone, for the making of keys before anything else is configured. Raises `SettingsError`."""
    faults = Faults()
    environment = dict(os.environ if environ is None else environ)
    node = read_sources(environment, _NAMES, Faults()).get("GATEWAY_KEY_SECRET")
    if node is None:
        return None
    secret = msgspec.structs.replace(node, faults=faults).secret(at_least=16)
    if faults:
        raise SettingsError(faults.lines())
    return secret
