"""Providers: three that the vendors' own variables switch on, and those of `GATEWAY_PROVIDERS`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway_middleware.core.domain import ProviderKind, Timeouts
from gateway_middleware.settings import scalars
from gateway_middleware.settings.breakers import read_breaker
from gateway_middleware.settings.node import Node
from gateway_middleware.settings.tree import ProviderSettings

PUBLIC_URLS = {ProviderKind.OPENAI: "https://api.openai.com/v1", ProviderKind.ANTHROPIC: "https://api.anthropic.com"}
BUILT_IN_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "azure": "AZURE_OPENAI_API_KEY"}
_BUILT_IN = {
    "openai": {"kind": "openai", "api_key": "OPENAI_API_KEY", "base_url": "OPENAI_BASE_URL"},
    "anthropic": {"kind": "anthropic", "api_key": "ANTHROPIC_API_KEY", "base_url": "ANTHROPIC_BASE_URL"},
    "azure": {
        "kind": "azure_openai",
        "api_key": "AZURE_OPENAI_API_KEY",
        "base_url": "AZURE_OPENAI_ENDPOINT",
        "api_version": "OPENAI_API_VERSION",
    },
}
_OPTIONS = ("kind", "base_url", "api_key", "api_version", "timeouts", "insecure", "organization", "project", "breaker",
            "on_disconnect")  # fmt: skip
_ONLY_FOR = {
    "api_version": (ProviderKind.AZURE_OPENAI, ProviderKind.ANTHROPIC),
    "organization": (ProviderKind.OPENAI,),
    "project": (ProviderKind.OPENAI,),
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,31}")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]{1,256}")
_NO_ENTRA = "without a key means Entra ID, which is not supported yet: set"


def read_providers(nodes: Mapping[str, Node]) -> dict[str, ProviderSettings | None]:
    """Every declared provider by name, None where it is faulty. An entry replaces the built-in of its name."""
    listed = nodes.get("GATEWAY_PROVIDERS")
    entries = listed.structured().entries() if listed else {}
    found: dict[str, ProviderSettings | None] = {}
    for name, variables in _BUILT_IN.items():
        if name not in entries and _is_enabled(name, nodes):
            found[name] = _read_built_in(name, variables, nodes)
    return found | {name: _read_entry(name, entry) for name, entry in entries.items()}


def _is_enabled(name: str, nodes: Mapping[str, Node]) -> bool:
    return BUILT_IN_KEYS[name] in nodes or (name == "azure" and "AZURE_OPENAI_ENDPOINT" in nodes)


def _read_built_in(name: str, variables: Mapping[str, str], nodes: Mapping[str, Node]) -> ProviderSettings | None:
    members = {member: nodes[variable] for member, variable in variables.items() if variable in nodes}
    faults = next(iter(members.values())).faults
    if "api_key" not in members:
        faults.add("AZURE_OPENAI_API_KEY", f"AZURE_OPENAI_ENDPOINT {_NO_ENTRA} AZURE_OPENAI_API_KEY")
    if name == "azure" and "base_url" not in members:
        faults.add("AZURE_OPENAI_ENDPOINT", "missing: AZURE_OPENAI_API_KEY needs it, https://NAME.openai.azure.com")
    return _build(name, ProviderKind(variables["kind"]), members)


def _read_entry(name: str, entry: Node) -> ProviderSettings | None:
    if not _NAME.fullmatch(name):
        entry.faults.add(entry.place, "expected a provider name of letters, digits and . _ - (at most 64)")
    members = entry.members(_OPTIONS)
    if not isinstance(entry.raw, dict):
        return None
    if "kind" not in members:
        entry.missing("kind", f"expected one of {', '.join(ProviderKind)}")
        return None
    kind = ProviderKind(scalars.choice(members["kind"], list(ProviderKind)))
    _complain_about_missing(kind, entry, members)
    _complain_about_foreign(kind, members)
    return _build(name, kind, members)


def _complain_about_missing(kind: ProviderKind, entry: Node, members: Mapping[str, Node]) -> None:
    if "api_key" not in members:
        cure = f"an Azure provider {_NO_ENTRA} api_key" if kind is ProviderKind.AZURE_OPENAI else "expected the API key"
        entry.missing("api_key", f"{cure}, as env:NAME or file:/path")
    if "base_url" not in members and kind not in PUBLIC_URLS:
        entry.missing("base_url", "expected the endpoint, https://NAME.openai.azure.com")


def _complain_about_foreign(kind: ProviderKind, members: Mapping[str, Node]) -> None:
    for name, kinds in _ONLY_FOR.items():
        if name in members and kind not in kinds:
            members[name].fault(f"expected only with kind {' or '.join(kinds)}")


def _build(name: str, kind: ProviderKind, members: Mapping[str, Node]) -> ProviderSettings | None:
    """None when a member without default is missing, which has been complained about."""
    key = members["api_key"].secret() if "api_key" in members else None
    is_insecure = "insecure" in members and scalars.boolean(members["insecure"])
    base_url = _base_url(members["base_url"], is_insecure) if "base_url" in members else PUBLIC_URLS.get(kind)
    timeouts = scalars.timeouts(members["timeouts"], Timeouts()) if "timeouts" in members else Timeouts()
    version = _text(members, "api_version", _VERSION, "expected an API version such as 2025-04-01-preview")
    organization, project = (
        _text(members, option, _HEADER_VALUE, "expected printable ASCII without spaces")
        for option in ("organization", "project")
    )
    drains = "on_disconnect" in members and scalars.choice(members["on_disconnect"], ["cancel", "drain"]) == "drain"
    breaker = read_breaker(members.get("breaker"))
    if key is None or base_url is None:
        return None
    return ProviderSettings(
        name=name,
        kind=kind,
        base_url=base_url,
        api_key=key,
        api_version=version,
        timeouts=timeouts,
        is_insecure=is_insecure,
        organization=organization,
        project=project,
        breaker=breaker,
        drains=drains,
    )


def _text(members: Mapping[str, Node], name: str, pattern: re.Pattern[str], expectation: str) -> str | None:
    return scalars.text(members[name], pattern, expectation) if name in members else None


def _base_url(node: Node, is_insecure: bool) -> str:  # noqa: FBT001
    found = scalars.url(node)
    if found.startswith("http:") and not is_insecure and not scalars.is_loopback(scalars.host_of(found)):
        node.fault('expected https: plain http only to loopback, or with "insecure": true in GATEWAY_PROVIDERS')
    return found
