"""Metrics as text, a few samples at a time: a scrape of ten thousand series must not hold the event loop."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING

from prometheus_client.exposition import choose_encoder

from gateway_middleware.core.asgi import header

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from prometheus_client.core import Metric

    from gateway_middleware.core.asgi import Receive, Scope, Send

    Families = Callable[[], Iterable[Metric]]

_SAMPLES = 100
_END = b"# EOF\n"


class Exposition:
    """`/metrics`, in the text format or OpenMetrics, as the scraper asks."""

    def __init__(self, families: Families) -> None:
        self._families = families

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        encode, content_type = choose_encoder((header(scope, b"accept") or b"").decode("latin-1"))
        headers = [(b"content-type", content_type.encode()), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for chunk in self._chunks(encode):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        last = _END if b"openmetrics" in headers[0][1] else b""
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _chunks(self, encode: Callable[[_Registry], bytes]) -> AsyncIterator[bytes]:
        for family in self._families():
            for number, part in enumerate(parts(family)):
                text = encode(_Registry(part)).removesuffix(_END)
                yield text if number == 0 else _without_head(text)
                await asyncio.sleep(0)


class _Registry:
    """One family, for an encoder that asks for a registry."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return [self._family]


def parts(family: Metric) -> Iterator[Metric]:
    """The family with a part of its samples at a time; at least one part."""
    samples = family.samples
    for start in range(0, max(len(samples), 1), _SAMPLES):
        part = copy.copy(family)
        part.samples = samples[start : start + _SAMPLES]
        yield part


def _without_head(text: bytes) -> bytes:
    """What says the name and the type stands before the first part only."""
    return b"".join(line for line in text.splitlines(keepends=True) if not line.startswith(b"# "))
