"""Reads `GATEWAY_TENANTS`: digests of keys, limits, and the models that each tenant may call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from gateway_middleware.core.provider_api import Auth
from gateway_middleware.core.secret import Secret
from gateway_middleware.settings import scalars
from gateway_middleware.settings.faults import shown_name
from gateway_middleware.settings.labels import read_requirements
from gateway_middleware.settings.limits import LIMIT_OPTIONS, pick_limits, read_limits, read_limits_by_model
from gateway_middleware.settings.node import Node
from gateway_middleware.settings.on_budget import read_on_budget
from gateway_middleware.settings.tree import ProviderSettings, TenantSettings
from gateway_middleware.tenancy.keys import TenantKey
from gateway_middleware.tenancy.trusted_header import NAME

_OPTIONS = (
    "keys", *LIMIT_OPTIONS, "models", "per_key", "per_model", "per_end_user", "priority", "on_unpriced",
    "on_policy_outage", "require", "credentials", "on_budget",
)  # fmt: skip
_NO_PROVIDERS: Mapping[str, ProviderSettings | None] = MappingProxyType({})
_DIGEST = re.compile(r"(?:hmac-)?sha256:[0-9A-Fa-f]{64}")
_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_PATTERN = re.compile(r"[\x20-\x7e]{1,256}")
_CLIENT = "client"
"""In place of a key: the caller sends its own."""
_NAMED = "expected a name of letters, digits and . _ @ - (at most 64)"
_LISTED = (
    "expected sha256:<64 hex digits> or hmac-sha256:<64 hex digits>, never the key itself; "
    "`model-gateway keys hash` makes it"
)


def read_tenants(
    node: Node | None,
    *,
    has_key_secret: bool,
    needs_keys: bool = True,
    providers: Mapping[str, ProviderSettings | None] = _NO_PROVIDERS,
) -> tuple[TenantSettings, ...]:
    """Every tenant. `providers` are those for which one may have a key of its own.

    `has_key_secret`: `GATEWAY_KEY_SECRET` is set, so that HMAC digests can be compared. `needs_keys`: keys are the only
    way to know a tenant.
    """
    entries = node.structured().entries() if node else {}
    owners: dict[str, str] = {}
    for entry in entries.values():
        if needs_keys and isinstance(entry.raw, dict) and "keys" not in entry.raw:
            entry.missing("keys", "expected a list of digests; `model-gateway keys new` makes one")
    return tuple(_read_tenant(name, entry, owners, has_key_secret, providers) for name, entry in entries.items())


def _read_tenant(
    name: str,
    node: Node,
    owners: dict[str, str],
    has_key_secret: bool,  # noqa: FBT001
    providers: Mapping[str, ProviderSettings | None],
) -> TenantSettings:
    if not NAME.fullmatch(name):
        node.faults.add(node.place, "expected a tenant name of letters, digits and . _ @ - (at most 64)")
    members = node.members(_OPTIONS)
    keys = _read_keys(members["keys"]) if "keys" in members else []
    for key in keys:
        _complain_about_key(members["keys"], key.digest, name, owners, has_key_secret)
    credentials, client_provider = _read_credentials(members.get("credentials"), providers)
    return TenantSettings(
        name=name,
        keys=tuple(keys),
        limits=pick_limits(members),
        per_key=read_limits(members.get("per_key")),
        per_end_user=read_limits(members.get("per_end_user")),
        per_model=read_limits_by_model(members.get("per_model")),
        priority=scalars.integer(members["priority"], -100, 100) if "priority" in members else 0,
        require=read_requirements(members["require"]) if "require" in members else (),
        on_unpriced=_read_on_unpriced(members.get("on_unpriced")),
        on_budget=read_on_budget(members),
        on_policy_outage=_read_on_policy_outage(members.get("on_policy_outage")),
        models=_read_models(members["models"]) if "models" in members else ("*",),
        credentials=credentials,
        client_provider=client_provider,
    )


def _read_credentials(
    node: Node | None, providers: Mapping[str, ProviderSettings | None]
) -> tuple[tuple[tuple[str, Secret], ...], str | None]:
    """The tenant's own keys, and the provider that is asked with the caller's."""
    if node is None:
        return (), None
    entries = _entries(node, providers)
    of_client = [name for name, entry in entries.items() if entry.raw == _CLIENT]
    for name, entry in entries.items():
        _complain_about_provider(name, entry, providers, is_clients=name in of_client)
    if len(of_client) > 1:
        node.fault(f'expected "client" for one provider, not for {" and ".join(of_client)}')
    own = tuple((name, entry.secret()) for name, entry in entries.items() if name not in of_client)
    return own, of_client[0] if of_client else None


def _entries(node: Node, providers: Mapping[str, ProviderSettings | None]) -> dict[str, Node]:
    """By provider; `"client"` alone is of the only provider that there is."""
    if node.raw != _CLIENT:
        return node.hidden().entries()
    if len(providers) == 1:
        return dict.fromkeys(providers, node)
    node.fault(f'expected which provider: {{"NAME": "client"}} with one of {", ".join(providers)}')
    return {}


def _complain_about_provider(
    name: str, node: Node, providers: Mapping[str, ProviderSettings | None], *, is_clients: bool
) -> None:
    provider = providers.get(name)
    if name not in providers:
        node.fault(f"expected the name of a provider: {', '.join(providers)}")
    elif not is_clients and provider is not None and provider.auth is Auth.NONE and provider.entra is None:
        node.fault("expected only for a provider that takes a credential")


def _read_keys(node: Node) -> list[TenantKey]:
    listed = node.items("expected a list of digests that is not empty")
    return [key for item in listed for key in _read_key(item)]


def _read_key(node: Node) -> list[TenantKey]:
    """A digest, or an object of `digest`, `name` and `expires`; a reference may lead to several digests."""
    if not isinstance(node.raw, dict):
        return [TenantKey(digest) for digest in _read_digests(node.hidden())]
    members = node.members(("digest", "name", "expires"))
    if "digest" not in members:
        node.missing("digest", _LISTED)
        return []
    name = scalars.text(members["name"], _KEY_NAME, _NAMED) if "name" in members else None
    expires = _read_moment(members["expires"]) if "expires" in members else None
    return [TenantKey(digest, name, expires) for digest in _read_digests(members["digest"].hidden())]


def _read_moment(node: Node) -> float:
    """Seconds since the epoch, of RFC 3339 text or what TOML makes of it."""
    try:
        moment = node.raw if isinstance(node.raw, datetime) else datetime.fromisoformat(str(node.raw))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        node.fault("expected a moment with its time zone, such as 2027-01-31T00:00:00Z")
        return 0.0
    return moment.astimezone(UTC).timestamp()


def _read_digests(node: Node) -> list[str]:
    """The digests of one item: itself, or those in the variable or file it refers to, by commas, spaces or lines."""
    reference = node.reference()
    if reference is None:
        return []
    text, source = reference
    digests = [text] if source == node.place else text.replace(",", " ").split()
    for digest in digests:
        if not _DIGEST.fullmatch(digest):
            node.faults.hide(digest)
            node.fault(_LISTED)
    return [digest.lower() for digest in digests if _DIGEST.fullmatch(digest)]


def _complain_about_key(node: Node, key: str, tenant: str, owners: dict[str, str], has_key_secret: bool) -> None:  # noqa: FBT001
    start = key[: key.index(":") + 9] + "..."
    if key in owners:
        node.faults.add(node.place, f"{start} is listed for tenant {shown_name(owners[key])} already; expected once")
    owners[key] = tenant
    if key.startswith("hmac-") and not has_key_secret:
        node.faults.add(node.place, f"{start} needs GATEWAY_KEY_SECRET, which is not set")


def _read_on_unpriced(node: Node | None) -> str:
    return "refuse" if node is None else scalars.choice(node, ["refuse", "allow"])


def _read_on_policy_outage(node: Node | None) -> str | None:
    return None if node is None else scalars.choice(node, ["refuse", "allow"])


def _read_models(node: Node) -> tuple[str, ...]:
    listed = node.items("expected a list of model patterns that is not empty")
    return tuple(scalars.text(item, _PATTERN, "expected a model name or a pattern such as gpt-*") for item in listed)
