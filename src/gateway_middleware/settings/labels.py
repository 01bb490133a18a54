"""Reads labels of providers, and what tenants require of them: `{"region": "eu", "zdr": true}`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway_middleware.settings import scalars

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Requirements
    from gateway_middleware.settings.node import Node

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")
_VALUE = "expected true, false, or a word of letters, digits and . _ / - (at most 63)"


def read_labels(node: Node) -> tuple[tuple[str, str], ...]:
    """Each label with its value; booleans become `true` and `false`."""
    return tuple((_name(name, entry), _value(entry)) for name, entry in node.entries().items())


def read_requirements(node: Node) -> Requirements:
    """Each label with the values that will do: one, or a list."""
    entries = node.entries()
    return tuple((_name(name, entry), tuple(map(_value, _listed(entry)))) for name, entry in entries.items())


def _listed(node: Node) -> list[Node]:
    return [node] if isinstance(node.raw, bool) else node.items(f"{_VALUE}, or a list of these")


def _name(name: str, node: Node) -> str:
    if not _LABEL.fullmatch(name):
        node.hidden().fault("expected a label of letters, digits and . _ / - (at most 63)")
    return name


def _value(node: Node) -> str:
    return str(node.raw).lower() if isinstance(node.raw, bool) else scalars.text(node, _LABEL, _VALUE)
