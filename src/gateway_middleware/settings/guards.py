"""Reads `GATEWAY_GUARDS`: services that look at prompts and answers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway_middleware.settings import scalars
from gateway_middleware.settings.tree import GUARD_STAGES, GuardSettings

if TYPE_CHECKING:
    from gateway_middleware.settings.node import Node

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OPTIONS = ("url", "token", "stages", "deadline", "on_failure", "shadow", "window", "overlap")
_MAX_WINDOW = 100_000


def read_guards(node: Node) -> tuple[GuardSettings, ...]:
    """In their order, in which they are asked."""
    read = (_read(name, entry) for name, entry in node.structured().entries().items())
    return tuple(guard for guard in read if guard is not None)


def _read(name: str, node: Node) -> GuardSettings | None:
    if not _NAME.fullmatch(name):
        node.fault("expected a name of letters, digits and . _ - (at most 64)")
    members = node.members(_OPTIONS)
    if "url" not in members:
        if isinstance(node.raw, dict):
            node.missing("url", "expected the address of the guard, https://...")
        return None
    window = scalars.integer(members["window"], 1, _MAX_WINDOW) if "window" in members else 200
    overlap = scalars.integer(members["overlap"], 0, _MAX_WINDOW) if "overlap" in members else 64
    return GuardSettings(
        name=name,
        url=scalars.url(members["url"]),
        token=members["token"].secret() if "token" in members else None,
        stages=_stages(members["stages"]) if "stages" in members else GUARD_STAGES,
        deadline=scalars.seconds(members["deadline"]) if "deadline" in members else 1.0,
        fails_open="on_failure" in members and scalars.choice(members["on_failure"], ["refuse", "pass"]) == "pass",
        is_shadow="shadow" in members and scalars.boolean(members["shadow"]),
        window=window,
        overlap=overlap,
    )


def _stages(node: Node) -> tuple[str, ...]:
    listed = node.items(f"expected a list of {', '.join(GUARD_STAGES)}")
    return tuple(scalars.choice(item, GUARD_STAGES) for item in listed)
