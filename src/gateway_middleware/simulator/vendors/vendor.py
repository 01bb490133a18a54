"""What makes a vendor differ from OpenAI or Anthropic, whose format it speaks, and how an answer gets that shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import msgspec

from gateway_middleware.core.domain import Dialect
from gateway_middleware.simulator.answer import Answer, Stream, data_frame, encode
from gateway_middleware.simulator.refusals import Refusal

Document: TypeAlias = dict[str, Any]
Edit: TypeAlias = Callable[[Document], Document]
_decode = msgspec.json.Decoder().decode
_DATA = b"data: {"


def unchanged(document: Document) -> Document:
    """The same document."""
    return document


class Vendor(msgspec.Struct, frozen=True, kw_only=True):
    """One vendor. `base` is the path of its API, `kinds` the paths below it.

    `credentials` are the headers in which it takes a key (`authorization` as a bearer token); none: it wants no key.
    """

    name: str
    base: str
    kinds: frozenset[str]
    credentials: tuple[bytes, ...]
    dialect: Dialect = Dialect.OPENAI
    refuses: Callable[[Document], Refusal | None] = lambda _: None
    """Why it would not take a body that OpenAI takes."""
    whole: Edit = unchanged
    """Its form of a whole answer."""
    chunk: Edit = unchanged
    """Its form of a chunk of a stream."""
    error: Callable[[Document, int], Any] = lambda document, _: document
    """Its form of an error body, by status."""
    before_whole: bytes = b""
    """What comes before a whole answer while it is awaited."""
    before_stream: bytes = b""
    """Comments that come before the first chunk."""
    has_usage_unasked: bool = False
    """Streams end with usage, whether `stream_options` ask for it or not."""
    joins_usage: bool = False
    """Usage stands in the chunk that has the finish reason."""
    joins_calls: bool = False
    """A call of a tool comes in one chunk."""
    omits: tuple[str, ...] = ()
    """Beginnings of the names of headers that it does not send."""


def dressed(answer: Answer, vendor: Vendor) -> Answer:
    """The answer as the vendor would give it."""
    if answer.stream is not None:
        answer.stream = _stream(answer.stream, vendor)
    elif answer.status >= 400:
        answer.body = encode(vendor.error(_decode(answer.body), answer.status))
    else:
        answer.body = vendor.before_whole + encode(vendor.whole(_decode(answer.body)))
    return answer


def _stream(stream: Stream, vendor: Vendor) -> Stream:
    if vendor.dialect is Dialect.ANTHROPIC:
        return stream
    content = _joined_calls(stream.content) if vendor.joins_calls else stream.content
    closing = _joined_usage(stream.closing) if vendor.joins_usage else stream.closing
    return Stream(
        opening=vendor.before_stream + _edited(stream.opening, vendor.chunk),
        content=(_edited(piece, vendor.chunk) for piece in content),
        closing=tuple(_edited(piece, vendor.chunk) for piece in closing),
        error=lambda: _edited(stream.error(), lambda document: vendor.error(document, 500)),
        ping=stream.ping,
        broken=stream.broken,
    )


def _edited(piece: bytes, edit: Edit) -> bytes:
    """Every event of a piece that holds an object, edited."""
    events = piece.split(b"\n\n")[:-1]
    return b"".join(data_frame(edit(_decode(e[6:]))) if e.startswith(_DATA) else e + b"\n\n" for e in events)


def _joined_usage(closing: Iterable[bytes]) -> Iterator[bytes]:
    """The chunk with the finish reason takes over the usage of the one after it."""
    *finish, usage, done = closing
    documents = [_decode(piece[6:]) for piece in finish]
    documents[-1]["usage"] = _decode(usage[6:])["usage"]
    yield from (data_frame(document) for document in documents)
    yield done


def _joined_calls(content: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces of each call in one chunk. Text passes as it comes."""
    calls: dict[int, Document] = {}
    for piece in content:
        document = _decode(piece[6:])
        for part in document["choices"][0]["delta"].get("tool_calls", ()):
            first = calls.setdefault(part["index"], document)
            if first is not document:
                call = first["choices"][0]["delta"]["tool_calls"][0]
                call["function"]["arguments"] += part["function"]["arguments"]
        if not calls:
            yield piece
    yield from (data_frame(document) for document in calls.values())
