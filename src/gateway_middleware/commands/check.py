"""`check`: read the configuration as `serve` would, and say what it would run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.breaker.state.policy import BreakerPolicy, Mode
from gateway_middleware.commands.compose import add_overrides, compose, environment_of
from gateway_middleware.commands.probe import probe_all
from gateway_middleware.commands.summary import ignored_variables, places
from gateway_middleware.composition.breakers import policies_of
from gateway_middleware.composition.pricing import price_warnings
from gateway_middleware.core.provider_api import Auth
from gateway_middleware.settings import DeploymentSettings, ProviderSettings, Settings, TenantSettings
from gateway_middleware.settings.retirement import retirement_warnings

if TYPE_CHECKING:
    import argparse

    from gateway_middleware.core.secret import Secret


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `serve`, and `--probe`."""
    add_overrides(parser)
    parser.add_argument(
        "--probe",
        nargs="?",
        const="",
        metavar="PROVIDER",
        help="go the way to the providers, or to one: DNS, TCP, TLS, token of Entra ID, list of models, with times",
    )


def run(args: argparse.Namespace) -> int:
    """Print what the settings say, or probe. Raises `SettingsError` with every fault, like `serve`."""
    environment = environment_of(args)
    settings = Settings.from_env(environment)
    if args.probe is not None:
        return 0 if asyncio.run(probe_all(settings, args.probe)) else 1
    print("\n".join(describe(settings, environment)), flush=True)
    compose(settings)
    return 0


def describe(settings: Settings, environ: Mapping[str, str] = MappingProxyType({})) -> Iterable[str]:
    """The configuration in lines, without a secret. `environ` is asked for variables that have no effect."""
    yield "providers"
    for provider in settings.providers:
        yield f"  {_provider(provider)}"
        yield f"    {_timeouts(provider)}"
    if settings.breaker != "off":
        yield "circuit breakers"
        yield from (f"  {name}: {_policy(policy)}" for name, policy in policies_of(settings).items())
    yield "routes"
    for route in settings.routes:
        yield f"  {route.name} -> {', '.join(_deployment(d) for d in route.deployments)}"
    yield "  provider/model and plain model names resolve by provider"
    yield "tenants"
    for tenant in settings.tenants:
        yield f"  {_tenant(tenant)}"
        yield from (f"    credential at {line}" for line in _credentials(tenant))
    yield from (f"  {line}" for line in _known_otherwise(settings))
    yield from places(settings)
    workers = "1 worker" if settings.workers == 1 else f"{settings.workers} workers"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    yield f"serve would listen on http://{host}:{settings.port} with {workers}"
    yield f"configuration {settings.config_hash}"
    ending = retirement_warnings(settings.routes, time.time())
    yield from (f"warning: {line}" for line in [*settings.warnings(), *ending, *price_warnings(settings)])
    yield from (f"warning: {line}" for line in ignored_variables(environ))


def _known_otherwise(settings: Settings) -> Iterable[str]:
    """Ways to know a tenant besides its keys, and who is asked whether it may call."""
    if settings.tenant_header is not None:
        yield f"by the header {settings.tenant_header} from {', '.join(settings.trusted_proxies)}"
    if settings.jwt_issuer is not None:
        signed = ", ".join(settings.jwt_algorithms)
        yield f"by the claim {settings.jwt_tenant_claim} of tokens of {settings.jwt_issuer}, signed by {signed}"
    if settings.is_open:
        yield "everybody: GATEWAY_OPEN"
    if settings.policy_adapter_url is not None:
        yield f"asked about at the policy-adapter {settings.policy_adapter_url}; on outage: {settings.policy_on_outage}"


def _provider(provider: ProviderSettings) -> str:
    version = f" api-version {provider.api_version}" if provider.api_version else ""
    key = ", ".join(_keys(provider))
    if provider.entra is not None:
        key = f"Entra ID by {provider.entra.flow}"
    elif provider.aws is not None:
        aws = provider.aws
        key = f"signed for {aws.service} in {aws.region} by {_secret(aws.secret_access_key)}"
    elif provider.auth is Auth.NONE:
        key = "no key"
    labels = "".join(f", {name}={value}" for name, value in provider.labels)
    return f"{provider.name}: {provider.kind} at {provider.base_url}{version}, {key}{labels}"


def _keys(provider: ProviderSettings) -> Iterable[str]:
    """Its key, or each of several by name and weight."""
    if not provider.keys:
        yield f"key {_secret(provider.api_key)}"
    for key in provider.keys:
        yield f"{key.name} {_secret(key.secret)} weight {key.weight:g}"


def _secret(secret: Secret) -> str:
    return f"{secret.source} (fingerprint {secret.fingerprint})"


def _credentials(tenant: TenantSettings) -> Iterable[str]:
    """Whose credential its calls carry, where that is not the gateway's."""
    for provider, key in tenant.credentials:
        yield f"{provider}: the tenant's own key {_secret(key)}"
    if tenant.client_provider is not None:
        yield f"{tenant.client_provider}: the caller's own, sent beside x-gateway-key"


def _timeouts(provider: ProviderSettings) -> str:
    deadlines = msgspec.structs.asdict(provider.timeouts)
    return "timeouts: " + ", ".join(f"{name.replace('_', ' ')} {seconds:g} s" for name, seconds in deadlines.items())


def _policy(policy: BreakerPolicy) -> str:
    ratio = f"{policy.failure_ratio:.0%} of {policy.min_calls} or more calls in {policy.window:g} s"
    verb = "would open" if policy.mode is Mode.SHADOW else "opens"
    lasts = f"{policy.open_base:g} to {policy.open_cap:g} s"
    return f"{verb} after {policy.consecutive} failures in a row or {ratio}, for {lasts}"


def _deployment(deployment: DeploymentSettings) -> str:
    weight = f" (weight {deployment.weight})" if deployment.weight != 1 else ""
    return deployment.deployment.key + weight


def _tenant(tenant: TenantSettings) -> str:
    limits = [
        f"{name} {value}"
        for name in ("requests", "tokens", "concurrency", "spend")
        if (value := getattr(tenant.limits, name)) is not None
    ]
    keys = "1 key" if len(tenant.keys) == 1 else f"{len(tenant.keys)} keys"
    if tenant.on_unpriced != "refuse":
        limits.append(f"on_unpriced {tenant.on_unpriced}")
    limits += [f"requires {name}={' or '.join(values)}" for name, values in tenant.require]
    return "; ".join([f"{tenant.name}: {keys}", *limits, f"models {', '.join(tenant.models)}"])
