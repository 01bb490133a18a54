"""Deltas that are alike are translated together: to what each of them would be alone, however the stream is made."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_middleware.core.domain import Surface
from gateway_middleware.core.errors import UpstreamProtocolError
from gateway_middleware.core.sse import parse_event, split_events
from gateway_middleware.translation.context import Context, Repeated, StreamDecoder
from gateway_middleware.translation.dialects import CLIENTS
from gateway_middleware.translation.dialects import PROVIDERS as FORMATS
from gateway_middleware.translation.events import Event
from gateway_middleware.translation.reader import TranslatedStream
from provider_calls import ANTHROPIC, OPENAI, model_request
from traffic import Exchange, exchanges
from translation.translating import CHAT, MESSAGES, RESPONSES, called, chunk, message_stream, more, sse

SURFACES = {"chat": CHAT, "responses": RESPONSES, "messages": MESSAGES}
WAYS = [(client, to) for to in SURFACES.values() for client in SURFACES.values() if client is not to]
NOTHING = {"type": "text", "text": ""}


class Counting:
    """A decoder that counts what it decodes; `is_alone`: it never says that data may be repeated."""

    def __init__(self, inner: StreamDecoder, *, is_alone: bool = False) -> None:
        self._inner = inner
        self._is_alone = is_alone
        self.count = 0

    def decode(self, data: bytes) -> Iterable[Event]:
        self.count += 1
        return self._inner.decode(data)

    def repeats(self, data: bytes) -> Repeated | None:
        return None if self._is_alone else self._inner.repeats(data)

    def finish(self) -> Iterable[Event]:
        return self._inner.finish()


class Said(msgspec.Struct):
    """What came of a stream, and how many of its events were decoded."""

    written: list[bytes]
    error: str
    decoded: int

    @property
    def events(self) -> list[tuple[bytes, Any]]:
        """By read, so that nothing comes sooner or later."""
        return [_meaning(event) for read in self.written for event in [b"\0", *split_events(read)]]


def _meaning(event: bytes) -> tuple[bytes, Any]:
    name, data = parse_event(event)
    return name, msgspec.json.decode(data) if data.startswith(b"{") else data


def translate(client: Surface, to: Surface, reads: Iterable[bytes], *, is_alone: bool = False, **known: Any) -> Said:
    context = Context(created=1, **known)
    adapter = ANTHROPIC if to is MESSAGES else OPENAI
    decoder = Counting(FORMATS[to].stream_decoder(context), is_alone=is_alone)
    inner = adapter.reader(model_request(to, is_stream=True), is_event_stream=True)
    reader = TranslatedStream(inner, decoder, CLIENTS[client].stream_encoder(context))
    said = Said([], "", 0)
    try:
        for read in reads:
            said.written.append(reader.feed(read) + b"".join(reader.rest))
        said.written.append(reader.finish() + b"".join(reader.rest))
    except UpstreamProtocolError as error:
        said.error = str(error)
    said.error = said.error or str(reader.error or "")
    said.decoded = decoder.count
    return said


def check(client: Surface, to: Surface, reads: list[bytes], **known: Any) -> Said:
    together, alone = translate(client, to, reads, **known), translate(client, to, reads, is_alone=True, **known)
    assert together.error == alone.error
    assert together.events == alone.events
    if b"\\u" not in b"".join(reads) and b"\\/" not in b"".join(reads):
        assert together.written == alone.written
    return together


def cut(wire: bytes, dice: random.Random, sizes: tuple[int, ...]) -> Iterator[bytes]:
    at = 0
    while at < len(wire):
        size = dice.choice(sizes)
        yield wire[at : at + size]
        at += size


STREAMS = [e for e in exchanges() if e.surface in SURFACES and e.sse is not None and e.status == 200]


@pytest.mark.parametrize("exchange", STREAMS, ids=lambda e: e.id)
def test_recorded_streams(exchange: Exchange) -> None:
    to, wire = SURFACES[exchange.surface], exchange.wire
    for client in (c for c, provider in WAYS if provider is to):
        check(client, to, [wire])
        check(client, to, split_events(wire))
        check(client, to, list(cut(wire, random.Random(exchange.id), (1, 7, 64, 300, 2000))))


def chat(deltas: list[dict[str, Any]], **others: Any) -> list[bytes]:
    return [sse(chunk(delta, **others)) for delta in deltas]


CHAT_KINDS: dict[str, tuple[list[bytes], list[bytes]]] = {
    "text": ([], chat([{"content": f" word {n}"} for n in range(100)])),
    "with its role": ([], chat([{"role": "assistant", "content": f" word {n}"} for n in range(100)])),
    "thoughts": ([], chat([{"reasoning_content": f"hm {n}"} for n in range(100)])),
    "thoughts by another name": ([], chat([{"reasoning": f"hm {n}"} for n in range(100)])),
    "arguments": (chat([called(0, "call_1", "f")]), chat([more(0, f'"{n}",') for n in range(100)])),
    "padded": ([], [sse(chunk({"content": "a"}, obfuscation="x" * n)) for n in range(100)]),
}  # fmt: skip
MESSAGE_KINDS: dict[str, list[dict[str, Any]]] = {
    "text": [NOTHING, *({"type": "text_delta", "text": f" word {n}"} for n in range(100))],
    "thoughts": [
        {"type": "thinking", "thinking": "", "signature": ""},
        *({"type": "thinking_delta", "thinking": f"hm {n}"} for n in range(100)),
        {"type": "signature_delta", "signature": "c2ln"},
    ],
    "arguments": [
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
        *({"type": "input_json_delta", "partial_json": f'"{n}",'} for n in range(100)),
    ],
}


@pytest.mark.parametrize("kind", CHAT_KINDS)
@pytest.mark.parametrize("is_one_read", [True, False])
def test_a_chat_stream_is_translated_together(kind: str, is_one_read: bool) -> None:
    head, deltas = CHAT_KINDS[kind]
    end = [sse(chunk({}, "stop"), done=True)]
    reads = [b"".join(head + deltas + end)] if is_one_read else head + deltas + end
    assert check(MESSAGES, CHAT, reads).decoded < 10
    check(RESPONSES, CHAT, reads)


@pytest.mark.parametrize("kind", MESSAGE_KINDS)
@pytest.mark.parametrize("is_one_read", [True, False])
def test_a_stream_of_messages_is_translated_together(kind: str, is_one_read: bool) -> None:
    wire = message_stream(MESSAGE_KINDS[kind])
    reads = [wire] if is_one_read else split_events(wire)
    assert check(CHAT, MESSAGES, reads, wants_usage=True).decoded < 15
    check(RESPONSES, MESSAGES, reads)


def test_blanks_of_varying_length_before_the_last_brace_are_nothing() -> None:
    texts = [{"type": "text_delta", "text": f" word {n} "} for n in range(100)]
    events = split_events(message_stream([NOTHING, *texts]))
    padded = [event[:-3] + b" " * (n % 7) + event[-3:] for n, event in enumerate(events)]
    assert check(CHAT, MESSAGES, [b"".join(padded)]).decoded < 20


def test_a_citation_stands_after_all_of_the_text() -> None:
    citation = {"type": "web_search_result_location", "url": "https://a.b", "title": "t", "cited_text": "c"}
    texts = [{"type": "text_delta", "text": f'\n"é{n}'} for n in range(50)]
    wire = message_stream([NOTHING, *texts, {"type": "citations_delta", "citation": citation}])
    found = b"".join(check(CHAT, MESSAGES, [wire]).written)
    assert b'"start_index":%d' % sum(len(text["text"]) for text in texts) in found


def test_a_form_that_changes_with_each_event_is_given_up_and_one_that_changes_at_times_is_not() -> None:
    each = [sse(chunk({"content": "a"}, created=n)) for n in range(100)]
    assert check(MESSAGES, CHAT, each).decoded == 100
    at_times = [sse(chunk({"content": "a"}, created=n // 10)) for n in range(100)]
    assert check(MESSAGES, CHAT, at_times).decoded == 11
    assert check(MESSAGES, CHAT, [b"".join(at_times)]).decoded == 11


def test_a_text_that_stands_in_its_event_twice_teaches_nothing() -> None:
    reads = [sse(chunk({"content": "gpt"}))] * 20
    assert check(MESSAGES, CHAT, reads).decoded == 20


def test_a_text_that_comes_with_the_end_of_its_choice_teaches_nothing() -> None:
    ends = [sse(chunk({"content": f"word {n}"}, "stop")) for n in range(3)]
    assert check(MESSAGES, CHAT, [SEEN, *ends, sse(done=True)]).decoded == 5


def test_arguments_that_are_taken_apart_are_decoded() -> None:
    pieces = ['{"inp', 'ut": "a', "b", "c", '\\n"}']
    chats = chat([called(0, "call_1", "f"), *(more(0, piece) for piece in pieces)])
    end = sse(chunk({}, "tool_calls"), done=True)
    check(RESPONSES, CHAT, [*chats, end], free_form=frozenset({"f"}))
    block = [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    check(CHAT, MESSAGES, split_events(message_stream(block + deltas)), free_form=frozenset({"f"}))


def test_calls_whose_pieces_come_mixed_come_one_after_the_other() -> None:
    first = chat([called(0, "call_1", "f"), *[more(0, "1")] * 9, called(1, "call_2", "f"), *[more(1, "2")] * 9])
    mixed = chat([more(n % 2, "[") for n in range(20)])
    for reads in (first, [b"".join(first)], first + mixed, chat([called(0, "a", "f"), called(1, "b", "f")]) + mixed):
        check(MESSAGES, CHAT, [*reads, sse(chunk({}, "tool_calls"), done=True)])


SEEN = sse(chunk({"content": "seen"}))
BEFORE, AFTER = SEEN.split(b"seen")


@pytest.mark.parametrize(
    "inside",
    [
        b"",
        b'a"',
        b"a\\",
        b"a\nb",
        b"a\n\nb",
        b"a\x01b",
        b"\xc3\xa9",
        b"\xc3",
        b"\xa9",
        b"\\ud83d",
        b"\\ude00",
        b"\\ud83d\\ude00",
        b"\\u00e9\\/",
        b"\\x",
        b"\\",
        b',"b',
        b'","content":"c',
        b'x","role":"y',
        b" ",
        b"\x7f",
        AFTER,
        AFTER + b"lost",
        AFTER + BEFORE,
        b"lost" + AFTER + BEFORE + b"and found",
        AFTER + b": a comment\n\n" + BEFORE,
        AFTER + b"data: {}\n\n" + BEFORE + b"more",
        AFTER[:-2] + b"\r\n\r\n" + BEFORE,
    ],
)
def test_what_is_no_text_is_told_like_a_single_event(inside: bytes) -> None:
    odd = BEFORE + inside + AFTER
    end = sse(chunk({}, "stop"), done=True)
    for others in (
        [odd],
        [odd, odd],
        [SEEN, odd, SEEN],
        [odd, BEFORE + b"\xa9" + AFTER],
        [odd, BEFORE + b',"b' + AFTER],
    ):
        check(MESSAGES, CHAT, [SEEN, *others, end])
        check(MESSAGES, CHAT, [SEEN + SEEN + b"".join(others) + end])


def test_a_stream_that_ends_without_a_blank_line_is_told_to_its_end() -> None:
    check(MESSAGES, CHAT, [SEEN, SEEN, SEEN[:-2]])
    check(MESSAGES, CHAT, [SEEN[:-2]])


TEXTS = st.one_of(
    st.text(max_size=6), st.sampled_from(['"', "\\", "\n", "é", "😀", "}", "data: ", ',"obfuscation":"x"}'])
)
RAW = st.one_of(
    st.binary(max_size=4), st.sampled_from([b"\\", b'"', b'","', b"\n\n", b"\\ud83d", b"\\u", b"\xc3", AFTER])
)

OTHERS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {}, {}, {}, {"created": 2}, {"usage": None}, {"obfuscation": "xyz"}, {"choices": []}]
)


@st.composite
def chat_events(draw: st.DrawFn) -> bytes:
    member = draw(st.sampled_from(["content", "content", "content", "reasoning_content", "refusal"]))
    text = draw(TEXTS)
    delta = draw(
        st.sampled_from(
            [{member: text}] * 4
            + [more(0, text), more(1, text), called(0, "call_1", "f", text), called(1, "call_2", "f"), {}]
        )
    )
    others = draw(OTHERS)
    event = chunk(delta, draw(st.sampled_from([None] * 8 + ["stop"])), **others)
    return b"data: " + (json.dumps(event).encode() if draw(st.booleans()) else msgspec.json.encode(event)) + b"\n\n"


RUNS = st.lists(
    st.one_of(
        chat_events(),
        st.lists(TEXTS, max_size=6).map(lambda texts: b"".join(chat([{"content": text} for text in texts]))),
        st.lists(RAW, max_size=3).map(lambda texts: b"".join([BEFORE + text + AFTER for text in texts])),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(RUNS, st.randoms(use_true_random=False), st.sampled_from([(10**6,), (200, 500), (1, 50)]))
def test_any_stream(events: list[bytes], dice: random.Random, sizes: tuple[int, ...]) -> None:
    wire = b"".join([*events, sse(chunk({}, "stop"), done=True)])
    check(MESSAGES, CHAT, list(cut(wire, dice, sizes)))
    check(MESSAGES, CHAT, events)
