"""The text of a simulated answer, and the token usage that is reported for it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, cycle, islice
from typing import Any

import msgspec

_SENTENCES = (
    "Thank you for asking. The morning is bright, the kettle is warm, and every word here is simulated with care. "
    "May your builds be green, your queues be short, and your evenings be quiet."
)
_PLEASANT = tuple(_SENTENCES.split())
_MAX_ECHO_CHARACTERS = 80
_BYTES_PER_TOKEN = 4
_PIECE = 4


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens; `input` includes cached and cache-write tokens, `output` includes reasoning."""

    input: int
    output: int
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0


class Reply(msgspec.Struct, frozen=True):
    """A reply of `count` chunks. `is_cut`: the output cap ended it. `document`: JSON that was asked for."""

    prompt: str
    count: int
    size: int | None = None
    is_cut: bool = False
    document: str | None = None

    def __iter__(self) -> Iterator[str]:
        if self.document is not None:
            return islice(_pieces(self.document), self.count)
        words = islice(chain(_opening(self.prompt), cycle(_PLEASANT)), self.count)
        spaced = (word if at == 0 else " " + word for at, word in enumerate(words))
        if self.size is None:
            return spaced
        size = self.size
        return ((piece * (size // len(piece) + 1))[:size] for piece in spaced)

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self)


def document_after(schema: Any, *, cap: int | None) -> Reply:
    """A reply of JSON that fits a simple schema, as far as `cap` chunks go."""
    document = msgspec.json.encode(sample_arguments(schema)).decode()
    wanted = sum(1 for _ in _pieces(document))
    count = wanted if cap is None else min(wanted, max(cap, 0))
    return Reply("", count, is_cut=count < wanted, document=document)


def _pieces(document: str) -> Iterator[str]:
    return (document[at : at + _PIECE] for at in range(0, len(document), _PIECE))


def reply_to(prompt: str, *, length: int | None, size: int | None, cap: int | None) -> Reply:
    """The reply to what the user said last, of `length` chunks but never more than `cap`."""
    wanted = length if length is not None else len(_opening(prompt)) + len(_PLEASANT)
    count = wanted if cap is None else min(wanted, max(cap, 0))
    return Reply(prompt, count, size, count < wanted)


def input_tokens(body: bytes) -> int:
    """A quarter of the bytes of the request body, rounded up."""
    return -(-len(body) // _BYTES_PER_TOKEN)


def _opening(prompt: str) -> list[str]:
    shown = " ".join(prompt[:_MAX_ECHO_CHARACTERS].split())
    return f"You said: “{shown}”.".split() if shown else ["Hello."]


def sample_arguments(schema: Any) -> dict[str, Any]:
    """Arguments that fit a simple JSON schema."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return {name: _sample(rules) for name, rules in properties.items()} if isinstance(properties, dict) else {}


_SAMPLES: dict[str, Any] = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "null": None}


def _sample(rules: Any) -> Any:
    if not isinstance(rules, dict):
        return "sample"
    if isinstance(choices := rules.get("enum"), list) and choices:
        return choices[0]
    kind = rules.get("type")
    if kind == "object":
        return sample_arguments(rules)
    return _SAMPLES.get(kind, "sample") if isinstance(kind, str) else "sample"
