"""Reads `aws` of a provider: with what its requests are signed, where `auth` is `sigv4`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway_middleware.core.provider_api import Auth, AwsConfig
from gateway_middleware.settings import scalars

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway_middleware.settings.node import Node

_OPTIONS = ("access_key_id", "secret_access_key", "session_token", "region", "service")
_NAME = re.compile(r"[a-z0-9-]{1,64}")
_HOST = re.compile(r"(bedrock(?:-runtime|-mantle)?)(?:-fips)?\.([a-z]{2}[a-z-]*-\d)\.(?:amazonaws\.com|api\.aws)")
_MANTLE = "bedrock-mantle"
_SIGNED = 'expected with "auth": "sigv4", and only there'


def signs(members: Mapping[str, Node]) -> bool:
    """Whether requests are to be signed."""
    return "auth" in members and members["auth"].raw == Auth.SIGV4


def read_aws(members: Mapping[str, Node]) -> AwsConfig | None:
    """Region and service are those of the host in `base_url`, unless they are given."""
    if not signs(members):
        if "aws" in members:
            members["aws"].hidden().fault(_SIGNED)
        return None
    if "api_key" in members:
        members["api_key"].hidden().fault('expected either this or "auth": "sigv4"')
    if "aws" not in members:
        members["auth"].fault("expected also `aws`, with access_key_id and secret_access_key")
        return None
    node = members["aws"].hidden()
    given = node.members(_OPTIONS)
    for name in ("access_key_id", "secret_access_key"):
        if name not in given:
            node.missing(name, "expected it as env:NAME or file:/path")
    service, region = _place(members.get("base_url"))
    if "region" in given:
        region = scalars.text(given["region"], _NAME, "expected a region such as eu-central-1")
    elif region is None:
        node.missing("region", "expected a region such as eu-central-1: base_url names none")
    if "service" in given:
        service = scalars.text(given["service"], _NAME, "expected a service such as bedrock")
    if region is None or not {"access_key_id", "secret_access_key"} <= given.keys():
        return None
    return AwsConfig(
        access_key_id=given["access_key_id"].secret(),
        secret_access_key=given["secret_access_key"].secret(),
        session_token=given["session_token"].secret() if "session_token" in given else None,
        region=region,
        service=service,
    )


def _place(base_url: Node | None) -> tuple[str, str | None]:
    """Service and region of Bedrock's own hosts."""
    url = base_url.raw if base_url is not None and isinstance(base_url.raw, str) else ""
    found = _HOST.search(url)
    if found is None:
        return "bedrock", None
    return (_MANTLE if found[1] == _MANTLE else "bedrock"), found[2]
