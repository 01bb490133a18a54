"""Reads the providers: those that the vendors' own variables switch on, and those of `GATEWAY_PROVIDERS`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from gateway_middleware.core.domain import MODEL_SURFACES, Surface, Timeouts
from gateway_middleware.core.provider_api import Auth, EntraConfig, ProviderKind
from gateway_middleware.core.secret import Secret
from gateway_middleware.settings import scalars
from gateway_middleware.settings.aws import read_aws, signs
from gateway_middleware.settings.breakers import read_breaker
from gateway_middleware.settings.entra import read_entra
from gateway_middleware.settings.labels import read_labels
from gateway_middleware.settings.node import Node
from gateway_middleware.settings.provider_keys import read_keys
from gateway_middleware.settings.reaching import read_ca_file, read_headers, read_proxy
from gateway_middleware.settings.tree import ProviderKey, ProviderSettings

_KINDS = Mapping[str, ProviderKind]


class BuiltIn(msgspec.Struct, frozen=True, kw_only=True):
    """A provider that variables of the vendor's own SDK switch on: its kind, and the variable of each option.

    `url_example` stands where there is no public address, so that `base_url` is needed as well.
    """

    kind: str
    api_key: str
    base_url: str
    api_version: str | None = None
    url_example: str = ""

    @property
    def variables(self) -> dict[str, str]:
        """The variables by the option that they set."""
        options = {"api_key": self.api_key, "base_url": self.base_url, "api_version": self.api_version}
        return {option: variable for option, variable in options.items() if variable is not None}


BUILT_IN = {
    "openai": BuiltIn(kind="openai", api_key="OPENAI_API_KEY", base_url="OPENAI_BASE_URL"),
    "anthropic": BuiltIn(kind="anthropic", api_key="ANTHROPIC_API_KEY", base_url="ANTHROPIC_BASE_URL"),
    "azure": BuiltIn(
        kind="azure_openai",
        api_key="AZURE_OPENAI_API_KEY",
        base_url="AZURE_OPENAI_ENDPOINT",
        api_version="OPENAI_API_VERSION",
        url_example="https://NAME.openai.azure.com",
    ),
}
_OPTIONS = (
    "kind",
    "base_url",
    "api_key",
    "api_version",
    "timeouts",
    "insecure",
    "organization",
    "project",
    "breaker",
    "on_disconnect",
    "stream_options",
    "ca_file",
    "proxy",
    "stateless",
    "surfaces",
    "auth",
    "headers",
    "labels",
    "entra",
    "aws",
)
_OF_SOME_KINDS = ("api_version", "organization", "project")
_ENTRA_KIND = "azure_openai"
_NO_URL = {"azure_openai": "expected the endpoint, https://NAME.openai.azure.com"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,31}")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]{1,256}")


def ways_to_switch_on() -> str:
    """The variables that switch on a built-in provider, as a sentence lists them."""
    ways = [f"{b.api_key} and {b.base_url}" if b.url_example else b.api_key for b in BUILT_IN.values()]
    return f"{', '.join(ways[:-1])}, or {ways[-1]}"


def read_providers(nodes: Mapping[str, Node], kinds: _KINDS) -> dict[str, ProviderSettings | None]:
    """Every declared provider by name, None where it is faulty. An entry replaces the built-in of its name."""
    listed = nodes.get("GATEWAY_PROVIDERS")
    entries = listed.structured().entries() if listed else {}
    providers: dict[str, ProviderSettings | None] = {}
    for name, built_in in BUILT_IN.items():
        if name not in entries and built_in.kind in kinds and _is_enabled(built_in, nodes, kinds):
            providers[name] = _read_built_in(name, built_in, nodes, kinds)
    return providers | {name: _read_entry(name, entry, kinds, nodes) for name, entry in entries.items()}


def _is_enabled(built_in: BuiltIn, nodes: Mapping[str, Node], kinds: _KINDS) -> bool:
    """A key does it, and an address where there is no public one."""
    return built_in.api_key in nodes or (kinds[built_in.kind].public_url is None and built_in.base_url in nodes)


def _read_built_in(name: str, built_in: BuiltIn, nodes: Mapping[str, Node], kinds: _KINDS) -> ProviderSettings | None:
    members = {option: nodes[variable] for option, variable in built_in.variables.items() if variable in nodes}
    faults = next(iter(members.values())).faults
    if "base_url" not in members and kinds[built_in.kind].public_url is None:
        faults.add(built_in.base_url, f"missing: {built_in.api_key} needs it, {built_in.url_example}")
    return _build(name, built_in.kind, members, kinds, _entra(built_in.kind, members, nodes))


def _read_entry(name: str, entry: Node, kinds: _KINDS, nodes: Mapping[str, Node]) -> ProviderSettings | None:
    if not _NAME.fullmatch(name):
        entry.faults.add(entry.place, "expected a provider name of letters, digits and . _ - (at most 64)")
    members = entry.members(_OPTIONS)
    if not isinstance(entry.raw, dict):
        return None
    if "kind" not in members:
        entry.missing("kind", f"expected one of {', '.join(kinds)}")
        return None
    kind = scalars.choice(members["kind"], list(kinds))
    _complain_about_missing(kind, entry, members, kinds)
    _complain_about_foreign(kind, members, kinds)
    return _build(name, kind, members, kinds, _entra(kind, members, nodes))


def _entra(kind: str, members: Mapping[str, Node], nodes: Mapping[str, Node]) -> EntraConfig | None:
    """An Azure provider without a key, or with the option, has tokens."""
    if kind != _ENTRA_KIND:
        if "entra" in members:
            members["entra"].fault(f"expected only with kind {_ENTRA_KIND}")
        return None
    if "entra" in members and "api_key" in members:
        members["entra"].fault("expected either this or api_key")
    has_other = "api_key" in members or _sends_none(members) or signs(members)
    return None if has_other and "entra" not in members else read_entra(members.get("entra"), nodes)


def _complain_about_missing(kind: str, entry: Node, members: Mapping[str, Node], kinds: _KINDS) -> None:
    if "api_key" not in members and not _sends_none(members) and not signs(members) and kind != _ENTRA_KIND:
        entry.missing("api_key", "expected the API key, as env:NAME or file:/path")
    if "base_url" not in members and kinds[kind].public_url is None:
        entry.missing("base_url", _NO_URL.get(kind, "expected the address of the provider"))


def _complain_about_foreign(kind: str, members: Mapping[str, Node], kinds: _KINDS) -> None:
    for option in _OF_SOME_KINDS:
        if option in members and option not in kinds[kind].options:
            takers = [name for name, taker in kinds.items() if option in taker.options]
            members[option].fault(f"expected only with kind {' or '.join(takers)}")


def _build(
    name: str, kind: str, members: Mapping[str, Node], kinds: _KINDS, entra: EntraConfig | None
) -> ProviderSettings | None:
    """None when a member without default is missing, which has been complained about."""
    keys = _keys(members) if entra is None else (_no_key("entra"),)
    is_insecure = "insecure" in members and scalars.boolean(members["insecure"])
    base_url = _base_url(members["base_url"], is_insecure) if "base_url" in members else kinds[kind].public_url
    timeouts = scalars.timeouts(members["timeouts"], Timeouts()) if "timeouts" in members else Timeouts()
    version = _text(members, "api_version", _VERSION, "expected an API version such as 2025-04-01-preview")
    organization, project = (
        _text(members, option, _HEADER_VALUE, "expected printable ASCII without spaces")
        for option in ("organization", "project")
    )
    breaker = read_breaker(members.get("breaker"))
    reads_on_disconnect = _reads_on(members.get("on_disconnect"))
    stream_options = "stream_options" not in members or scalars.boolean(members["stream_options"])
    ca_file = read_ca_file(members["ca_file"]) if "ca_file" in members else None
    proxy = read_proxy(members["proxy"]) if "proxy" in members else None
    is_stateless = "stateless" in members and scalars.boolean(members["stateless"])
    surfaces = _surfaces(members.get("surfaces"))
    labels = read_labels(members["labels"]) if "labels" in members else ()
    auth = Auth(scalars.choice(members["auth"], list(Auth))) if "auth" in members else None
    headers = read_headers(members["headers"]) if "headers" in members else ()
    aws = read_aws(members)
    if not keys or base_url is None:
        return None
    return ProviderSettings(
        name=name,
        kind=kind,
        base_url=base_url,
        api_key=keys[0].secret,
        keys=keys if len(keys) > 1 else (),
        api_version=version,
        timeouts=timeouts,
        is_insecure=is_insecure,
        organization=organization,
        project=project,
        breaker=breaker,
        reads_on_disconnect=reads_on_disconnect,
        stream_options=stream_options,
        ca_file=ca_file,
        proxy=proxy,
        is_stateless=is_stateless,
        surfaces=surfaces,
        auth=Auth.NONE if entra is not None else auth,
        entra=entra,
        aws=aws,
        headers=headers,
        labels=labels,
    )


def _keys(members: Mapping[str, Node]) -> tuple[ProviderKey, ...]:
    if "api_key" in members:
        return read_keys(members["api_key"])
    if signs(members):
        return (_no_key("sigv4"),)
    return (_no_key("none"),) if _sends_none(members) else ()


def _no_key(source: str) -> ProviderKey:
    return ProviderKey(name=source, secret=Secret("", source=source))


def _sends_none(members: Mapping[str, Node]) -> bool:
    return "auth" in members and members["auth"].raw == Auth.NONE


def _surfaces(node: Node | None) -> frozenset[Surface] | None:
    if node is None:
        return None
    names = {surface.label: surface for surface in MODEL_SURFACES}
    listed = node.items(f"expected a list of surfaces: {', '.join(names)}")
    return frozenset(names[scalars.choice(item, list(names))] for item in listed)


def _reads_on(node: Node | None) -> bool:
    return node is not None and scalars.choice(node, ["cancel", "drain"]) == "drain"


def _text(members: Mapping[str, Node], name: str, pattern: re.Pattern[str], expectation: str) -> str | None:
    return scalars.text(members[name], pattern, expectation) if name in members else None


def _base_url(node: Node, is_insecure: bool) -> str:  # noqa: FBT001
    url = scalars.url(node)
    if url.startswith("http:") and not is_insecure and not scalars.is_loopback(scalars.host_of(url)):
        node.fault('expected https: plain http only to loopback, or with "insecure": true in GATEWAY_PROVIDERS')
    return url
