"""Readers of answers that are no event streams: JSON, text, bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.providers.failures import stream_error_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway_middleware.core.domain import Usage
    from gateway_middleware.core.errors import UpstreamStreamError
    from gateway_middleware.core.provider_api import ResponseReader

    UsageFormat = Callable[[msgspec.Raw], Usage | None]


class AnswerHead(msgspec.Struct):
    """What is read of any answer; the rest is only checked for being JSON."""

    id: msgspec.Raw = msgspec.Raw()
    model: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    service_tier: msgspec.Raw = msgspec.Raw()
    output: msgspec.Raw = msgspec.Raw()


class _PlainHead(msgspec.Struct, gc=False):
    """The same where all is of the type that it should be, and nothing of it is rare."""

    id: str | None = None
    model: str | None = None
    usage: msgspec.Raw = msgspec.Raw()
    service_tier: str | None = None
    error: None = None
    output: None = None


class _OutputItem(msgspec.Struct):
    """What is read of an item of a response: its id, and that of the container in which its code ran."""

    id: msgspec.Raw = msgspec.Raw()
    container_id: msgspec.Raw = msgspec.Raw()


NOTHING = frozenset({b"", b"null", b"false", b'""', b"{}", b"[]", b"0"})
"""Values of a member `error` that report none."""

_decode_plain = msgspec.json.Decoder(_PlainHead).decode
_decode_head = msgspec.json.Decoder(AnswerHead).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_output = msgspec.json.Decoder(list[_OutputItem]).decode
_MAX_ITEMS = 1000


def head_of(body: bytes | msgspec.Raw) -> AnswerHead | None:
    """The head of a JSON object, or None when it is none."""
    if not body:
        return None
    try:
        return _decode_head(body)
    except (ValueError, RecursionError):
        return None


def text_of(raw: msgspec.Raw) -> str | None:
    """The JSON string in these bytes, or None for anything else and for an empty one."""
    if not raw:
        return None
    try:
        return _decode_text(raw) or None
    except (ValueError, RecursionError):
        return None


def item_ids_of(output: msgspec.Raw) -> tuple[str, ...]:
    """The ids of the items of a response and of their containers; none, where it is no list of objects."""
    if not output:
        return ()
    try:
        items = _decode_output(output)
    except (ValueError, RecursionError):
        return ()
    raws = [raw for item in items[:_MAX_ITEMS] for raw in (item.id, item.container_id) if raw]
    return tuple(dict.fromkeys(name for raw in raws if (name := text_of(raw)) is not None))


def reported_failure(
    head: AnswerHead, *, secrets: tuple[str, ...], is_certain: bool = False
) -> UpstreamStreamError | None:
    """What an answer that came with 200 says of its own failure, if it does, or if that is certain."""
    if bytes(head.error) in NOTHING and not is_certain:
        return None
    return stream_error_from(b"", b'{"error":%b}' % (bytes(head.error) or b"null"), secrets=secrets)


class BinaryReader:
    """An answer that is not looked into: audio. Complete at a clean end."""

    __slots__ = ("error", "failure", "has_content", "is_complete", "is_usage_final", "item_ids", "raw_usage",
                 "response_id", "response_model", "rest", "service_tier", "usage")  # fmt: skip

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.raw_usage: bytes | None = None
        self.is_usage_final = False
        self.service_tier: str | None = None
        self.response_id: str | None = None
        self.response_model: str | None = None
        self.item_ids: tuple[str, ...] = ()
        self.rest: Iterable[bytes] = ()
        self.is_complete = False
        self.error: UpstreamStreamError | None = None
        self.failure: UpstreamStreamError | None = None
        self.has_content = False

    def feed(self, chunk: bytes) -> bytes:
        self.has_content = True
        return chunk

    def finish(self) -> bytes:
        self.is_complete = True
        return b""

    def ending(self) -> bytes:
        return b""


class JsonReader(BinaryReader):
    """A JSON object. Complete when it is one."""

    __slots__ = ("_chunks", "_read_usage", "_secrets")

    def __init__(self, read_usage: UsageFormat, *, secrets: tuple[str, ...] = ()) -> None:
        BinaryReader.__init__(self)
        self._secrets = secrets
        self._chunks: list[bytes] = []
        self._read_usage = read_usage

    def feed(self, chunk: bytes) -> bytes:
        self.has_content = True
        self._chunks.append(chunk)
        return chunk

    def finish(self) -> bytes:
        chunks, self._chunks = self._chunks, []
        self.is_complete = self._read(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        return b""

    def _read(self, body: bytes) -> bool:
        try:
            plain = _decode_plain(body)
        except (ValueError, RecursionError):
            return self._read_any(body)
        self.response_id, self.response_model = plain.id or None, plain.model or None
        self.service_tier = plain.service_tier or None
        self._count(plain.usage)
        return True

    def _read_any(self, body: bytes) -> bool:
        head = head_of(body)
        if head is None:
            return False
        self.response_id, self.response_model = text_of(head.id), text_of(head.model)
        self.service_tier = text_of(head.service_tier)
        if head.output:
            self.item_ids = item_ids_of(head.output)
        self._count(head.usage)
        if head.error:
            self.failure = reported_failure(head, secrets=self._secrets)
        return True

    def _count(self, usage: msgspec.Raw) -> None:
        self.usage = self._read_usage(usage)
        self.raw_usage = bytes(usage) if self.usage is not None else None


class TranscriptReader(JsonReader):
    """JSON, or plain text and subtitles where the form asked for them. Broken JSON and HTML are not complete."""

    __slots__ = ()

    def _read(self, body: bytes) -> bool:
        start = body[:64].lstrip().lower()
        return super()._read(body) or not start.startswith((b"{", b"<!doctype", b"<html"))


if TYPE_CHECKING:
    _: tuple[type[ResponseReader], ...] = (BinaryReader, JsonReader, TranscriptReader)
