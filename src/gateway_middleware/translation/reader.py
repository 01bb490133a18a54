"""Readers that follow an answer in the provider's format and give it out in the client's."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.sse import EventSplitter, end_of_event, parse_event, split_events
from gateway_middleware.translation.alike_deltas import AlikeDeltas
from gateway_middleware.translation.events import CallDelta, ReasoningDelta, TextDelta

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway_middleware.core.domain import Usage
    from gateway_middleware.core.errors import UpstreamStreamError
    from gateway_middleware.core.provider_api import ResponseReader
    from gateway_middleware.translation.context import (
        AnswerDecoder,
        AnswerEncoder,
        Context,
        StreamDecoder,
        StreamEncoder,
    )

_ARE_USUAL = re.compile(rb"(?:(?:event: .*\n)?data: .*\n\n)*").fullmatch
_DELTAS = frozenset({CallDelta, ReasoningDelta, TextDelta})
_DATA = re.compile(rb"data: (.*)\n\n").findall


class _TranslatingReader:
    """What both have in common: the provider's own reader learns, and finds the end and errors."""

    __slots__ = (
        "_inner",
        "error",
        "failure",
        "has_content",
        "is_complete",
        "is_usage_final",
        "item_ids",
        "raw_usage",
        "response_id",
        "response_model",
        "rest",
        "service_tier",
        "usage",
    )

    def __init__(self, inner: ResponseReader) -> None:
        self._inner = inner
        self.usage: Usage | None = None
        self.raw_usage: bytes | None = None
        self.service_tier: str | None = None
        self.response_id: str | None = None
        self.response_model: str | None = None
        self.is_complete = False
        self.is_usage_final = False
        self.error: UpstreamStreamError | None = None
        self.failure: UpstreamStreamError | None = None
        self.has_content = False
        self.item_ids: tuple[str, ...] = ()
        self.rest: Iterable[bytes] = ()

    def ending(self) -> bytes:
        return b""

    def _learn(self) -> None:
        inner = self._inner
        self.usage, self.raw_usage, self.service_tier = inner.usage, inner.raw_usage, inner.service_tier
        self.response_id, self.response_model = inner.response_id, inner.response_model
        self.has_content, self.is_complete, self.error = inner.has_content, inner.is_complete, inner.error
        self.is_usage_final = inner.is_usage_final


class TranslatedAnswer(_TranslatingReader):
    """A whole answer: it is given out when all of it has come."""

    __slots__ = ("_chunks", "_context", "_read", "_write")

    def __init__(self, inner: ResponseReader, read: AnswerDecoder, write: AnswerEncoder, context: Context) -> None:
        super().__init__(inner)
        self._read = read
        self._write = write
        self._context = context
        self._chunks: list[bytes] = []

    def feed(self, chunk: bytes) -> bytes:
        self._chunks.append(self._inner.feed(chunk))
        self._learn()
        return b""

    def finish(self) -> bytes:
        """Raises `UpstreamStreamError` when the answer reports a failure, `UpstreamProtocolError` for another shape."""
        body = b"".join([*self._chunks, self._inner.finish()])
        self._chunks.clear()
        self._learn()
        if self._inner.failure is not None:
            raise self._inner.failure
        if not self.is_complete:
            return b""
        answer = self._read(body, self._context)
        return self._write(msgspec.structs.replace(answer, usage=self.usage), self._context)


class TranslatedStream(_TranslatingReader):
    """A stream: each event is given out as soon as it has come. A failure that ends it is an error of the stream."""

    __slots__ = ("_alike", "_decoder", "_encoder", "_is_over", "_splitter")

    def __init__(self, inner: ResponseReader, decoder: StreamDecoder, encoder: StreamEncoder) -> None:
        super().__init__(inner)
        self._decoder = decoder
        self._encoder = encoder
        self._alike = AlikeDeltas(decoder, encoder)
        self._is_over = False
        self._splitter = EventSplitter(sys.maxsize)  # the provider's reader has the limit

    def feed(self, chunk: bytes) -> bytes:
        written = self._translate(self._whole(self._inner.feed(chunk)))
        self.rest = self._encoder.take_rest()
        return written

    def finish(self) -> bytes:
        written = self._translate(self._splitter.feed(self._inner.finish()) + self._splitter.finish())
        self.rest = self._encoder.take_rest()
        return written

    def _whole(self, relayed: bytes) -> bytes:
        """The whole events of what the provider's reader passes on: large ones it passes on in pieces."""
        if relayed.endswith(b"\n\n") and not self._splitter.held:
            return relayed
        return self._splitter.feed(relayed)

    def _translate(self, whole: bytes) -> bytes:
        self._learn()
        if self._inner.failure is not None:
            self.error = self._inner.failure
        if not whole:
            return self._finish_once()
        written: list[bytes] = []
        rest = self._alike.take(whole, written)
        while rest and self._alike.is_looking and b"\r" not in rest:
            rest = self._alike.take(self._until_alike(rest, written), written)
        if rest:
            self._alike.forget()
            usage, encode, decode = self.usage, self._encoder.encode, self._decoder.decode
            for data in _data_of(rest):
                written += [encode(event, usage) for event in decode(data)]
        written.append(self._finish_once())
        return b"".join(written)

    def _until_alike(self, events: bytes, written: list[bytes]) -> bytes:
        """Translate one by one up to an event that others may repeat; returns what is left."""
        self._alike.forget()
        end = 0
        has_learnt = False
        while end < len(events) and self._alike.is_looking and not has_learnt:
            start, end = end, end_of_event(events, end)
            has_learnt = self._one(events[start:end], written)
        return events[end:]

    def _one(self, event: bytes, written: list[bytes]) -> bool:
        """Translate one event; whether others may repeat it."""
        may_be_repeated = False
        for data in _data_of(event):
            said = list(self._decoder.decode(data))
            written += [self._encoder.encode(one, self.usage) for one in said]
            may_be_repeated = len(said) == 1 and type(said[0]) in _DELTAS and self._alike.learn(event, data)
        return may_be_repeated

    def _finish_once(self) -> bytes:
        if not self.is_complete or self._is_over or self.error is not None:
            return b""
        self._is_over = True
        return b"".join([self._encoder.encode(event, self.usage) for event in self._decoder.finish()])


def _data_of(whole: bytes) -> list[bytes]:
    """The data of each event that has some: nearly always it is one line, alone or below the event's name."""
    if b"\r" not in whole and _ARE_USUAL(whole):
        found: list[bytes] = _DATA(whole)
        return found
    return [data for raw in split_events(whole) if (data := parse_event(raw)[1])]
