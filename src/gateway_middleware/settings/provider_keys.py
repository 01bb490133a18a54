"""Reads `api_key` of a provider: one secret, or a list of several keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway_middleware.settings import scalars
from gateway_middleware.settings.tree import ProviderKey

if TYPE_CHECKING:
    from gateway_middleware.core.secret import Secret
    from gateway_middleware.settings.node import Node

_MAX_KEYS = 64
_MAX_WEIGHT = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_NAMED = "expected a name of letters, digits and . _ - (at most 32)"
_LISTED = "expected a secret, or a list of secrets that is not empty"


def read_keys(node: Node) -> tuple[ProviderKey, ...]:
    """At least one, unless there was a fault. Each is a secret, or an object of `key`, `weight` and `name`."""
    if not isinstance(node.raw, list):
        return (ProviderKey(name=_numbered(0), secret=node.secret()),)
    items = node.hidden().items(_LISTED)
    if len(items) > _MAX_KEYS:
        node.hidden().fault(f"expected at most {_MAX_KEYS} keys")
    keys = [key for number, item in enumerate(items) if (key := _read_key(item, number)) is not None]
    _complain_about_repeated(node, keys)
    return tuple(keys)


def _read_key(node: Node, number: int) -> ProviderKey | None:
    if not isinstance(node.raw, dict):
        return ProviderKey(name=_numbered(number), secret=node.secret())
    members = node.members(("key", "weight", "name"))
    if "key" not in members:
        node.missing("key", "expected the API key, as env:NAME or file:/path")
        return None
    return ProviderKey(
        name=scalars.text(members["name"], _NAME, _NAMED) if "name" in members else _numbered(number),
        secret=members["key"].secret(),
        weight=scalars.integer(members["weight"], 0, _MAX_WEIGHT) if "weight" in members else 1.0,
    )


def _complain_about_repeated(node: Node, keys: list[ProviderKey]) -> None:
    names: set[str] = set()
    secrets: set[Secret] = set()
    for key in keys:
        if key.name in names:
            node.faults.add(node.place, f"the name {key.name} stands twice; expected another one for each key")
        if key.secret.reveal() and key.secret in secrets:
            node.faults.add(node.place, f"{key.name} is the same key as another one; expected each once")
        names.add(key.name)
        secrets.add(key.secret)


def _numbered(number: int) -> str:
    return f"key-{number + 1}"
