"""Embeddings and moderations: one result for each input."""

from __future__ import annotations

import random
import struct
from base64 import b64encode
from functools import cache
from typing import Any
from zlib import crc32

from gateway_middleware.simulator.answer import Answer, Task, encode

_DIMENSIONS = 1536
_MAX_DIMENSIONS = 3072
_BYTES = 4


@cache
def _pool() -> list[float]:
    """Numbers to cut vectors from; multiples of 1/1024, so that float and base64 say exactly the same."""
    source = random.Random(20)
    return [source.randint(-64, 64) / 1024 for _ in range(2 * _MAX_DIMENSIONS)]


@cache
def _pool_bytes() -> bytes:
    return struct.pack(f"<{2 * _MAX_DIMENSIONS}f", *_pool())


def embeddings(task: Task) -> Answer:
    """`embeddings`, as floats or as base64 of little-endian float32."""
    size = min(max(task.parameters.dimensions or _DIMENSIONS, 1), _MAX_DIMENSIONS)
    is_base64 = task.parameters.encoding_format == "base64"
    rows = [
        {"object": "embedding", "index": at, "embedding": _vector(text, size, is_base64=is_base64)}
        for at, text in enumerate(_inputs(task.parameters.input))
    ]
    document: dict[str, Any] = {"object": "list", "data": rows, "model": task.model}
    if task.usage is not None:
        document["usage"] = {"prompt_tokens": task.usage.input, "total_tokens": task.usage.input}
    return Answer(body=encode(document))


def _inputs(value: Any) -> list[Any]:
    """The inputs: a text, texts, the tokens of one text, or those of several."""
    if not isinstance(value, list) or (value and isinstance(value[0], int)):
        return [value]
    return value


def _vector(text: Any, size: int, *, is_base64: bool) -> str | list[float]:
    start = crc32(encode(text)) % _MAX_DIMENSIONS
    if is_base64:
        return b64encode(_pool_bytes()[start * _BYTES : (start + size) * _BYTES]).decode()
    return _pool()[start : start + size]


_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
_HARMLESS = {
    "flagged": False,
    "categories": dict.fromkeys(_CATEGORIES, False),
    "category_scores": dict.fromkeys(_CATEGORIES, 0.0001),
    "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
}


def moderations(task: Task) -> Answer:
    """`moderations`: everything is harmless. A list of typed parts is one input."""
    texts = task.parameters.input
    is_several = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
    results = [_HARMLESS] * (len(texts) if is_several else 1)
    return Answer(body=encode({"id": f"modr-{task.number}", "model": task.model, "results": results}))
