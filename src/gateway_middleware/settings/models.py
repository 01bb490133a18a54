"""Reads `GATEWAY_MODELS`: what an operator knows better of models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway_middleware.core.model_names import RULE, is_model_name
from gateway_middleware.core.models import EFFORTS, ModelOverride, Sampling, ThinkingStyle
from gateway_middleware.settings import scalars

if TYPE_CHECKING:
    from gateway_middleware.settings.node import Node

_MAX_TOKENS = 100_000_000
_MAX_DISPLAY_NAME = 256


def read_models(node: Node) -> tuple[tuple[str, ModelOverride], ...]:
    """Each entry by `provider/model`, by model or by the name of a route."""
    entries = node.structured().entries()
    return tuple((_name(name, entry), _read(entry)) for name, entry in entries.items())


def _name(name: str, node: Node) -> str:
    if not is_model_name(name):
        node.faults.add(node.place, f"expected a model name of {RULE}")
    return name


def _read(node: Node) -> ModelOverride:
    members = node.members(_READERS)
    return ModelOverride(**{name: _READERS[name](member) for name, member in members.items()})


def _tokens(node: Node) -> int:
    return scalars.integer(node, 1, _MAX_TOKENS)


def _like(node: Node) -> str:
    if isinstance(node.raw, str) and is_model_name(node.raw):
        return node.raw
    node.fault(f"expected a model name of {RULE}")
    return ""


def _display_name(node: Node) -> str:
    if isinstance(node.raw, str) and node.raw.isprintable() and 0 < len(node.raw) <= _MAX_DISPLAY_NAME:
        return node.raw
    node.fault(f"expected 1 to {_MAX_DISPLAY_NAME} printable characters")
    return ""


def _thinking(node: Node) -> ThinkingStyle:
    return ThinkingStyle(scalars.choice(node, list(ThinkingStyle)))


def _sampling(node: Node) -> Sampling:
    return Sampling(scalars.choice(node, list(Sampling)))


def _efforts(node: Node) -> tuple[str, ...]:
    return tuple(scalars.choice(item, EFFORTS) for item in node.items(f"expected a list of {', '.join(EFFORTS)}"))


_READERS: dict[str, Any] = {
    "like": _like,
    "display_name": _display_name,
    "context_window": _tokens,
    "max_output_tokens": _tokens,
    "thinking": _thinking,
    "sampling": _sampling,
    "structured_output": scalars.boolean,
    "reasoning": scalars.boolean,
    "parallel_tool_calls": scalars.boolean,
    "efforts": _efforts,
}
