from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.domain import Surface
from gateway_middleware.metering.estimate import OutputEstimate
from traffic import WHY_SKIPPED, Exchange, exchanges, has_shared_traffic

SURFACES = {"chat": Surface.CHAT, "responses": Surface.RESPONSES, "messages": Surface.MESSAGES}
ENGLISH = "The gateway counts what was delivered, and says so in its usage event. "
NOT_SEEN = {"web_search", "server_tools", "thinking", "redacted_thinking", "reasoning", "citations"}


def chat(text: str, **delta: Any) -> bytes:
    body = {"choices": [{"index": 0, "delta": {"content": text, **delta}}], "obfuscation": "abc"}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def responses(text: str) -> bytes:
    body = {"type": "response.output_text.delta", "delta": text, "obfuscation": "abc"}
    return b"event: x\ndata: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def messages(text: str) -> bytes:
    body = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    return b"event: x\ndata: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


EVENTS = [(Surface.CHAT, chat), (Surface.RESPONSES, responses), (Surface.MESSAGES, messages)]


def fed(surface: Surface, *chunks: bytes, model: str = "gpt-4o") -> OutputEstimate:
    estimate = OutputEstimate(surface, model=model)
    for chunk in chunks:
        estimate.feed(chunk)
    return estimate


def fed_by_line(surface: Surface, stream: bytes, *, model: str = "gpt-4o") -> OutputEstimate:
    return fed(surface, *[line for line in stream.splitlines() if line.startswith(b"data:")], model=model)


@pytest.mark.parametrize(("surface", "event"), EVENTS)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=6))
def test_text_is_found_whatever_it_holds(surface: Surface, event: Any, texts: list[str]) -> None:
    events = [event(text) for text in texts]

    one, all_at_once = fed(surface, *events), fed(surface, b"".join(events))

    assert one.text_bytes == all_at_once.text_bytes == sum(len(text.encode()) for text in texts)
    assert one.deltas == all_at_once.deltas == sum(bool(text) for text in texts)
    assert one.tokens == all_at_once.tokens >= one.deltas


@pytest.mark.parametrize(("surface", "event"), EVENTS)
@pytest.mark.parametrize("text", ['"content":"x"', '\\"delta":"', '"text":"', "\\", '\\\\"', '": "', "\ud83d\ude00"])
def test_needles_inside_a_text_are_text(surface: Surface, event: Any, text: str) -> None:
    expected = len(text.encode("utf-8", "surrogatepass")) if not text.startswith("\ud83d") else 4

    assert fed(surface, event(text)).text_bytes == expected


@pytest.mark.parametrize(("surface", "event"), EVENTS)
@given(texts=st.lists(st.text(), min_size=1, max_size=4), at=st.integers(0, 400))
def test_a_cut_anywhere_is_survived(surface: Surface, event: Any, texts: list[str], at: int) -> None:
    stream = b"".join(event(text) for text in texts)
    cut, whole = fed_by_line(surface, stream[:at]), fed(surface, stream)

    assert 0 <= cut.deltas <= whole.deltas
    assert cut.text_bytes <= whole.text_bytes


@given(st.sampled_from(Surface), st.binary(max_size=300))
def test_nothing_is_unreadable(surface: Surface, junk: bytes) -> None:
    assert fed(surface, junk, b'data: {"a": "b', junk).tokens >= 0


def test_all_kinds_of_text_count() -> None:
    call = b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":"{\\"a\\":1}"}}]}}]}\n\n'
    thought = b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n'
    refusal = b'data: {"choices":[{"delta":{"refusal":"No."}}]}\n\n'

    found = fed(Surface.CHAT, chat("Hello"), thought, refusal, call, call)

    assert found.text_bytes == len('HellohmNo.{"a":1}{"a":1}')
    assert (found.deltas, found.calls) == (5, 2)
    assert found.tokens > fed(Surface.CHAT, chat("Hello"), thought, refusal).tokens + 20


def test_tool_calls_of_messages() -> None:
    begun = (
        b'data: {"type":"content_block_start","content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}\n\n'
    )
    delta = b'{"type":"input_json_delta","partial_json":"{\\"c\\": \\"Oslo"}'
    part = b'data: {"type":"content_block_delta","delta":' + delta + b"}\n\n"
    thought = b'data: {"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"A city."}}\n\n'

    found = fed(Surface.MESSAGES, thought, begun, part, begun + part, model="claude-sonnet-4-5")

    assert found.text_bytes == 2 * len('{"c": "Oslo') + len("A city.")
    assert found.calls == 2


def test_tool_calls_of_responses_count_once() -> None:
    added = b'data: {"type":"response.output_item.added","item":{"type":"function_call","name":"f","arguments":""}}\n\n'
    done = b'data: {"type":"response.output_item.done","item":{"type":"function_call","name":"f"}}\n\n'

    assert fed(Surface.RESPONSES, added, done).calls == 1
    assert fed(Surface.RESPONSES, added + done).calls == 1


def test_the_end_of_a_response_is_not_counted_again() -> None:
    completed = b'data: {"type":"response.completed","response":{"output":[{"content":[{"text":"Hello"}]}]}}\n\n'

    assert fed(Surface.RESPONSES, responses("Hello"), completed).text_bytes == 5


def test_json_with_blanks() -> None:
    spaced = b'data: {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi \\"there\\""}}\n\n'

    assert fed(Surface.MESSAGES, spaced, spaced + spaced).text_bytes == 3 * len('Hi "there"')


@pytest.mark.parametrize("surface", [Surface.EMBEDDINGS, Surface.IMAGES_GENERATIONS])
def test_surfaces_without_text(surface: Surface) -> None:
    assert fed(surface, chat("Hello")).tokens == 0


def test_short_events_of_openai_are_one_token_each() -> None:
    assert fed(Surface.CHAT, *[chat(f" w{number}") for number in range(50)]).tokens == 50


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("", 0, 0),
        ("OK", 1, 1),
        (ENGLISH * 20, 280, 340),
        ("1234567890" * 10, 60, 110),
        ("\u65e5\u672c\u8a9e" * 30, 70, 110),
    ],
)
def test_tokens_of_one_long_event(text: str, low: int, high: int) -> None:
    assert low <= fed(Surface.CHAT, chat(text)).tokens <= high


@pytest.mark.parametrize(
    ("model", "is_dense"),
    [
        ("claude-sonnet-4-5-20250929", False),
        ("claude-3-5-sonnet-20240620", False),
        ("claude-opus-4-7", True),
        ("claude-opus-4-8", True),
        ("claude-sonnet-5", True),
        ("claude-haiku-5-5", True),
        ("us.anthropic.claude-opus-5", True),
    ],
)
def test_newer_claudes_make_more_tokens(model: str, is_dense: bool) -> None:
    of_old = fed(Surface.MESSAGES, messages(ENGLISH * 9), model="claude-3-haiku")
    assert (fed(Surface.MESSAGES, messages(ENGLISH * 9), model=model).tokens > 1.3 * of_old.tokens) is is_dense


@given(st.text(), st.text())
def test_more_text_is_not_fewer_tokens(one: str, more: str) -> None:
    assert fed(Surface.CHAT, chat(one + " " + more)).tokens >= fed(Surface.CHAT, chat(one)).tokens


def delivered(exchange: Exchange) -> tuple[str, int, int | None, str]:
    """Text, pieces, reported output tokens and model, read by decoding everything."""
    pieces, tokens, model = [], None, ""
    for line in (exchange.sse or "").splitlines():
        if not line.startswith("data:") or "[DONE]" in line:
            continue
        data = json.loads(line[5:])
        within = data.get("response") or data.get("message") or data
        model = within.get("model") or model
        reported = within.get("usage") or data.get("usage") or {}
        tokens = reported.get("completion_tokens", reported.get("output_tokens", tokens))
        pieces += pieces_of(exchange.surface, data)
    pieces = [piece for piece in pieces if piece]
    return "".join(pieces), len(pieces), tokens, model


def pieces_of(surface: str, data: Any) -> list[str]:
    if surface == "responses":
        return [data["delta"]] if isinstance(data.get("delta"), str) else []
    if surface == "messages":
        delta = data["delta"] if data["type"] == "content_block_delta" else {}
        return [delta.get(name) or "" for name in ("text", "partial_json", "thinking")]
    deltas = [choice.get("delta") or {} for choice in data.get("choices") or ()]
    text = [delta.get(name) or "" for delta in deltas for name in ("content", "refusal", "reasoning_content")]
    calls = [call for delta in deltas for call in delta.get("tool_calls") or ()]
    return text + [(call.get("function") or {}).get("arguments") or "" for call in calls]


def streams() -> list[Exchange]:
    return [e for e in exchanges(stream=True) if e.sse and e.status == 200 and e.surface in SURFACES]


def test_recorded_streams_are_read_exactly() -> None:
    assert streams()
    for exchange in streams():
        text, pieces, _, _ = delivered(exchange)
        found = fed_by_line(SURFACES[exchange.surface], exchange.wire)
        whole = fed(SURFACES[exchange.surface], exchange.wire)
        assert (found.text_bytes, found.deltas) == (len(text.encode()), pieces), exchange.id
        assert (whole.text_bytes, whole.deltas, whole.calls) == (found.text_bytes, found.deltas, found.calls)


@pytest.mark.skipif(not has_shared_traffic(), reason=WHY_SKIPPED)
@pytest.mark.parametrize(("provider", "median", "total"), [("openai", 0.08, 0.06), ("anthropic", 0.13, 0.08)])
def test_estimates_are_near_what_was_billed(provider: str, median: float, total: float) -> None:
    pairs = []
    for exchange in streams():
        if exchange.provider != provider or NOT_SEEN & set(exchange.tags) or "tool_call" in exchange.tags:
            continue
        text, _, tokens, model = delivered(exchange)
        if text and tokens and tokens >= 20 and not model.startswith(("gpt-5", "o")):
            pairs.append((fed_by_line(SURFACES[exchange.surface], exchange.wire, model=model).tokens, tokens))
    errors = sorted(abs(ours - theirs) / theirs for ours, theirs in pairs)

    assert len(errors) >= 10
    assert errors[len(errors) // 2] <= median
    assert abs(sum(ours for ours, _ in pairs) / sum(theirs for _, theirs in pairs) - 1) <= total


def test_a_cut_escape_is_dropped() -> None:
    assert fed(Surface.CHAT, b'{"content":"ab\\').text_bytes == 2
    assert fed(Surface.CHAT, b'{"content":"ab\\u12').text_bytes == 2
    assert fed(Surface.CHAT, b'{"content":"ab\\ud83d\\ud').text_bytes == 2
    assert fed(Surface.CHAT, b'{"content":"a\\q\\q\\q\\q').text_bytes == len("a\\q\\q\\q\\q")
