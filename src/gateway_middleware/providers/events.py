"""Readers of event streams, one for each wire format.

Events are relayed as they came, whole and at once. They are decoded up to the first content, and after it where one of
a few needles stands, as it does in every event worth reading. A needle inside a text costs time and changes nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from gateway_middleware.core.sse import (
    MAX_EVENT_BYTES,
    EventSplitter,
    end_of_event,
    marked_events,
    parse_event,
    split_events,
)
from gateway_middleware.providers.answers import (
    NOTHING,
    AnswerHead,
    BinaryReader,
    head_of,
    item_ids_of,
    reported_failure,
    text_of,
)
from gateway_middleware.providers.failures import stream_error_from
from gateway_middleware.providers.large_event import LARGE_EVENT, LargeEvent
from gateway_middleware.providers.usage import anthropic_usage, json_object, openai_usage_of
from gateway_middleware.providers.usage_stripping import without_null_usage

if TYPE_CHECKING:
    from gateway_middleware.core.provider_api import ResponseReader

_DONE = b"[DONE]"
_ERROR = msgspec.Raw(b'"error"')


class EventData(AnswerHead):
    """What is read of the data of an event, whatever its format."""

    type: msgspec.Raw = msgspec.Raw()
    choices: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()
    message: msgspec.Raw = msgspec.Raw()
    delta: msgspec.Raw = msgspec.Raw()


_decode_event = msgspec.json.Decoder(EventData).decode
_decode_list = msgspec.json.Decoder(list[Any]).decode


def _event_data(data: bytes) -> EventData | None:
    """None when the data is no JSON object."""
    try:
        return _decode_event(data)
    except (ValueError, RecursionError):
        return None


class EventReader(BinaryReader, ABC):
    """Relays whole events and holds an unfinished one.

    A large one is relayed in pieces as it comes, unless what has come of it by then may be an end or an error.
    An error event ends the stream and is not relayed, nor is anything that comes after the terminating event. Where the
    body ends cleanly after an answer's last word and lacks only the terminating event, that is added.
    """

    __slots__ = ("_large", "_limit", "_secrets", "_splitter")
    needles: ClassVar[tuple[bytes, ...]]

    def __init__(self, *, secrets: tuple[str, ...] = (), limit: int = MAX_EVENT_BYTES) -> None:
        super().__init__()
        self._secrets = secrets
        self._limit = limit
        self._splitter = EventSplitter(limit)
        self._large: LargeEvent | None = None

    def feed(self, chunk: bytes) -> bytes:
        if self._is_over:
            return b""
        if self._large is not None:
            return self._go_on(self._large, chunk)
        whole = self._splitter.feed(chunk)
        relayed = self._follow(whole) if whole else b""
        if LARGE_EVENT < self._splitter.held <= LARGE_EVENT + len(chunk) and not self._is_over:
            relayed += self._begin_large()
        return relayed

    def _begin_large(self) -> bytes:
        """Relay what there is of an event that has become large: whatever has no needle by then is content."""
        begun = self._splitter.finish()
        if self._has_needle(begun):
            self._splitter.feed(begun)
            return b""
        self.has_content = True
        self._large = LargeEvent(self._limit)
        return self._go_on(self._large, begun)

    def _go_on(self, large: LargeEvent, chunk: bytes) -> bytes:
        piece, rest = large.feed(chunk)
        if rest is None:
            return piece
        self._large = None
        self._read(large.read)
        return self._unread(piece) + (self.feed(rest) if rest else b"")

    def _finish_large(self, large: LargeEvent) -> bytes:
        rest = large.finish()
        if not self._is_whole(large.read):
            return rest
        self._read(large.read)
        return self._completed(rest)

    def finish(self) -> bytes:
        if self._large is not None:
            return self._finish_large(self._large)
        rest = self._splitter.finish()
        if self._is_over or not self._is_whole(rest):
            return b""
        return self._completed(self._follow(rest))

    def ending(self) -> bytes:
        return b"" if self._large is None else self._large.ending()

    def _completed(self, relayed: bytes) -> bytes:
        """With the terminating event, where the stream lacks only that."""
        missing = b"" if self._is_over else self._end()
        return relayed + b"\n\n" + missing if relayed and missing else relayed + missing

    def _is_whole(self, rest: bytes) -> bool:
        """Whether the end of the stream lacks no more than a blank line."""
        _, data = parse_event(rest)
        is_blank = not rest.strip(b"\r\n")
        return is_blank or data.startswith(_DONE) or _event_data(data) is not None

    @property
    def _is_over(self) -> bool:
        """What comes after the end of a stream is not part of it."""
        return self.error is not None or self.is_complete

    def _follow(self, whole: bytes) -> bytes:
        """Read the events up to the first content, and from then on only those that have a needle."""
        if self.has_content and not self._has_needle(whole):
            return self._unread(whole)
        if b"\r" in whole:
            return self._each(split_events(whole))
        relayed: list[bytes] = []
        end = 0
        while end < len(whole) and not (self.has_content or self._is_over):
            start, end = end, end_of_event(whole, end)
            relayed.append(self._read(whole[start:end]))
        if end < len(whole) and not self._is_over:
            self._around_needles(whole, end, relayed)
        return relayed[0] if len(relayed) == 1 else b"".join(relayed)

    def _has_needle(self, events: bytes) -> bool:
        return max(map(events.rfind, self.needles)) >= 0  # several times as fast as `any` and `in`

    def _around_needles(self, whole: bytes, at: int, relayed: list[bytes]) -> None:
        rest = whole[at:]
        at = 0
        for start, end in marked_events(rest, self.needles):
            if start > at:
                relayed.append(self._unread(rest[at:start]))
            relayed.append(self._read(rest[start:end]))
            at = end
            if self._is_over:
                return
        if at < len(rest):
            relayed.append(self._unread(rest[at:]))

    def _each(self, events: list[bytes]) -> bytes:
        relayed = []
        for event in events:
            is_marked = not self.has_content or self._has_needle(event)
            relayed.append(self._read(event) if is_marked else self._unread(event))
            if self._is_over:
                break
        return b"".join(relayed)

    def _read(self, event: bytes) -> bytes:
        """Learn from one event; returns what of it is relayed."""
        name, data = parse_event(event)
        if not name and not data:
            return event
        fields = _event_data(data)
        if name == b"error" or (fields is not None and _is_error(fields)):
            self.error = stream_error_from(event, data, secrets=self._secrets)
            return b""
        if fields is None:
            self._learn_from_text(data)
            return event
        self._learn(text_of(fields.type) or name.decode("latin-1"), fields)
        return self._visible(event, fields)

    def _count(self, head: AnswerHead, *, is_final: bool = False) -> None:
        """Take over OpenAI's usage, where there is one."""
        usage = openai_usage_of(head.usage)
        if usage is not None:
            self.usage, self.raw_usage = usage, bytes(head.usage)
            self.is_usage_final = is_final

    def _identify(self, head: AnswerHead) -> None:
        self.service_tier = text_of(head.service_tier) or self.service_tier
        self.response_id = self.response_id or text_of(head.id)
        self.response_model = self.response_model or text_of(head.model)

    def _unread(self, whole: bytes) -> bytes:
        """What to relay of events in which there is nothing to read."""
        return whole

    def _visible(self, event: bytes, fields: EventData) -> bytes:
        """What to relay of an event that was read."""
        return event

    @abstractmethod
    def _learn(self, kind: str, fields: EventData) -> None:
        """Note what an event says; `kind` is its type, or its name where the data has none."""

    def _learn_from_text(self, data: bytes) -> None:
        """Data that is no JSON object."""

    def _end(self) -> bytes:
        """The body ended before the terminating event: returns that, if nothing else is missing."""
        return b""


def _is_error(fields: EventData) -> bool:
    return bytes(fields.error) not in NOTHING or fields.type == _ERROR


class ChatEvents(EventReader):
    """Chat completions and completions. The end is `[DONE]`, which some servers leave out after the last choice.

    `choices` is how many the request asked for.
    """

    __slots__ = ("_finished", "_wanted")
    needles = (_DONE, b'_tokens"', b"error", b'"finish_reason":"', b'"finish_reason": "')

    def __init__(self, *, choices: int = 1, secrets: tuple[str, ...] = (), limit: int = MAX_EVENT_BYTES) -> None:
        super().__init__(secrets=secrets, limit=limit)
        self._wanted = choices
        self._finished: set[str] = set()

    def _learn(self, kind: str, fields: EventData) -> None:
        self._identify(fields)
        choices = _choices(fields)
        finished = [str(choice.get("index")) for choice in choices if _is_finished(choice)]
        self._finished.update(finished)
        self._count(fields, is_final=bool(finished) or not choices)
        self.has_content = self.has_content or any(map(_has_content, choices))

    def _learn_from_text(self, data: bytes) -> None:
        self.is_complete = data.startswith(_DONE)

    def _end(self) -> bytes:
        self.is_complete = len(self._finished) >= self._wanted
        return b"data: [DONE]\n\n" if self.is_complete else b""


def _choices(fields: EventData) -> list[Any]:
    try:
        return _decode_list(fields.choices)
    except (ValueError, RecursionError):
        return []


def _is_finished(choice: object) -> bool:
    return isinstance(choice, dict) and bool(choice.get("finish_reason"))


def _has_content(choice: object) -> bool:
    """Whether a choice says more than the role that Azure and OpenAI send ahead."""
    if not isinstance(choice, dict):
        return False
    delta = choice.get("delta")
    says = isinstance(delta, dict) and any(value for name, value in delta.items() if name != "role")
    return says or bool(choice.get("text") or choice.get("finish_reason"))


class QuietChatEvents(ChatEvents):
    """The same for a client that did not ask for usage, which the gateway did."""

    __slots__ = ()

    def _unread(self, whole: bytes) -> bytes:
        return without_null_usage(whole)

    def _visible(self, event: bytes, fields: EventData) -> bytes:
        is_only_usage = bytes(fields.usage).startswith(b"{") and not _choices(fields)
        return b"" if is_only_usage else without_null_usage(event)


class ResponsesEvents(EventReader):
    """Responses. A response that failed or is incomplete has ended as well as one that is completed."""

    __slots__ = ()
    needles = (b'"response"', b"error")
    _lifecycle = frozenset({"response.created", "response.in_progress", "response.queued", "keepalive"})
    _ends = frozenset({"response.completed", "response.incomplete", "response.failed"})

    def _learn(self, kind: str, fields: EventData) -> None:
        head = head_of(fields.response)
        if head is not None:
            self._identify(head)
            self._count(head)
        self.has_content = self.has_content or kind not in self._lifecycle
        self.is_complete = kind in self._ends
        if self.is_complete and head is not None:
            self.item_ids = item_ids_of(head.output)
        if kind == "response.failed":
            self.failure = reported_failure(head or AnswerHead(), secrets=self._secrets, is_certain=True)


class MessagesEvents(EventReader):
    """Anthropic messages. Usage is cumulative: what comes later replaces what came before, member by member."""

    __slots__ = ("_has_stop_reason", "_reported")
    needles = (b"message_", b"error")
    _lifecycle = frozenset({"message_start", "ping"})

    def __init__(self, *, secrets: tuple[str, ...] = (), limit: int = MAX_EVENT_BYTES) -> None:
        super().__init__(secrets=secrets, limit=limit)
        self._reported: dict[str, Any] = {}
        self._has_stop_reason = False

    def _learn(self, kind: str, fields: EventData) -> None:
        head = head_of(fields.message)
        if head is not None:
            self._identify(head)
            self._update(head.usage)
        self._update(fields.usage)
        self.is_usage_final = self.is_usage_final or (kind == "message_delta" and bool(fields.usage))
        self.has_content = self.has_content or kind not in self._lifecycle
        self.is_complete = kind == "message_stop"
        if kind == "message_delta":
            self._has_stop_reason = bool(json_object(fields.delta).get("stop_reason"))

    def _end(self) -> bytes:
        self.is_complete = self._has_stop_reason
        return b'event: message_stop\ndata: {"type":"message_stop"}\n\n' if self.is_complete else b""

    def _update(self, usage: msgspec.Raw) -> None:
        counts = {name: value for name, value in json_object(usage).items() if value is not None}
        if counts:
            self._reported |= counts
            self.usage = anthropic_usage(self._reported)
            self.raw_usage = msgspec.json.encode(self._reported)
            self.service_tier = self._reported.get("service_tier") or self.service_tier


class MediaEvents(EventReader):
    """Images, speech and transcripts. Several images may be completed in turn: only the end of the body is theirs."""

    __slots__ = ()
    needles = (b'"usage"', b".done", _DONE, b"error")
    _ends = frozenset({"transcript.text.done", "speech.audio.done"})

    def _learn(self, kind: str, fields: EventData) -> None:
        self._count(fields)
        self.has_content = True
        self.is_complete = kind in self._ends

    def _learn_from_text(self, data: bytes) -> None:
        self.is_complete = data.startswith(_DONE)

    def _end(self) -> bytes:
        self.is_complete = self.has_content
        return b""


if TYPE_CHECKING:
    _: tuple[type[ResponseReader], ...] = (ChatEvents, QuietChatEvents, ResponsesEvents, MessagesEvents, MediaEvents)
