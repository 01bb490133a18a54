"""Reads how tokens of Microsoft Entra ID are got: the vendor's own variables, and the option `entra` of a provider."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway_middleware.core.provider_api import EntraConfig
from gateway_middleware.settings import scalars
from gateway_middleware.settings.node import Node

VARIABLES = {
    "tenant_id": "AZURE_TENANT_ID",
    "client_id": "AZURE_CLIENT_ID",
    "client_secret": "AZURE_CLIENT_SECRET",
    "token_file": "AZURE_FEDERATED_TOKEN_FILE",
    "authority": "AZURE_AUTHORITY_HOST",
    "identity_endpoint": "IDENTITY_ENDPOINT",
    "identity_header": "IDENTITY_HEADER",
}
"""As the vendor's SDK names them. The last two are set by App Service and its like."""
_OPTIONS = ("tenant_id", "client_id", "client_secret", "token_file", "authority", "scope")
_ID = re.compile(r"[A-Za-z0-9.-]{1,128}")
_SCOPE = re.compile(r"[\x21-\x7e]{1,256}/\.default")


def read_entra(node: Node | None, nodes: Mapping[str, Node]) -> EntraConfig:
    """`node` is the option, None where the variables (`nodes`) say all."""
    variables = {option: nodes[name] for option, name in VARIABLES.items() if name in nodes}
    members = variables if node is None else node.members(_OPTIONS)
    config = _config(members)
    needed = [name for name in ("tenant_id", "client_id") if name not in members]
    grant = next((members[name] for name in ("client_secret", "token_file") if name in members), None)
    if grant is not None and needed:
        names = [VARIABLES[name] if node is None else f"{node.place}.{name}" for name in needed]
        grant.faults.add(grant.place, f"expected also {' and '.join(names)}")
    return config


def _config(members: Mapping[str, Node]) -> EntraConfig:
    config: dict[str, object] = {}
    for name in ("tenant_id", "client_id"):
        if name in members:
            config[name] = scalars.text(members[name], _ID, "expected an id of letters, digits, . and -")
    for name in ("client_secret", "identity_header"):
        if name in members:
            config[name] = members[name].secret()
    if "token_file" in members:
        config["token_file"] = scalars.path(members["token_file"])
    if "authority" in members:
        config["authority"] = _authority(members["authority"])
    if "identity_endpoint" in members:
        config["identity_endpoint"] = scalars.url(members["identity_endpoint"])
    if "scope" in members:
        config["scope"] = scalars.text(members["scope"], _SCOPE, "expected a scope that ends in /.default")
    return EntraConfig(**config)  # type: ignore[arg-type]  # each by its name, read just above


def _authority(node: Node) -> str:
    """A secret goes there."""
    url = scalars.url(node)
    if url.startswith("http:") and not scalars.is_loopback(scalars.host_of(url)):
        node.fault("expected https: plain http only to loopback")
    return url
