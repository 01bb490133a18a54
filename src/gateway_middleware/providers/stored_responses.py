"""Readers of what a provider has stored of a response. Its tokens were used, and told, when it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.providers.answers import BinaryReader, item_ids_of, text_of
from gateway_middleware.providers.events import ResponsesEvents

if TYPE_CHECKING:
    from gateway_middleware.core.provider_api import ResponseReader


class _Stored(msgspec.Struct):
    """A response, what is left of one that was deleted, or a page of its input items."""

    id: msgspec.Raw = msgspec.Raw()
    model: msgspec.Raw = msgspec.Raw()
    output: msgspec.Raw = msgspec.Raw()
    data: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Stored).decode


class StoredReader(BinaryReader):
    """A JSON object, complete when it is one. That the response has failed is no failure of the call that reads it."""

    __slots__ = ("_chunks",)

    def __init__(self, *, secrets: tuple[str, ...] = (), limit: int = 0) -> None:
        super().__init__()
        self._chunks: list[bytes] = []

    def feed(self, chunk: bytes) -> bytes:
        self.has_content = True
        self._chunks.append(chunk)
        return chunk

    def finish(self) -> bytes:
        try:
            stored = _decode(b"".join(self._chunks))
        except (ValueError, RecursionError):
            return b""
        self.is_complete = True
        self.response_id, self.response_model = text_of(stored.id), text_of(stored.model)
        self.item_ids = item_ids_of(stored.output) or item_ids_of(stored.data)
        return b""


class StoredEvents(ResponsesEvents):
    """The events of a response, from some number on: of one that has ended, that may be none at all."""

    __slots__ = ("_is_empty",)

    def __init__(self, *, secrets: tuple[str, ...] = (), limit: int) -> None:
        super().__init__(secrets=secrets, limit=limit)
        self._is_empty = True

    def feed(self, chunk: bytes) -> bytes:
        self._is_empty = False
        relayed = super().feed(chunk)
        self._forget_use()
        return relayed

    def finish(self) -> bytes:
        relayed = super().finish()
        self.is_complete = self.is_complete or self._is_empty
        self._forget_use()
        return relayed

    def _forget_use(self) -> None:
        self.usage = self.raw_usage = self.service_tier = self.failure = None
        self.is_usage_final = False


if TYPE_CHECKING:
    _: tuple[type[ResponseReader], ...] = (StoredReader, StoredEvents)
