"""Text that waits for guards, sans-IO: what is replaced never leaks, wherever the provider cuts its text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_middleware.core.sse import parse_event, split_events
from gateway_middleware.guard.port import Part
from gateway_middleware.guard.stream import GuardedStream
from gateway_middleware.guard.window import TextWindow

pytestmark = pytest.mark.anyio
SECRET = "4111-1111"
CLEAN = "[card]"


async def redact(_: Part, text: str) -> str | None:
    clean = text.replace(SECRET, CLEAN)
    return None if clean == text else clean


async def leave(_: Part, __: str) -> str | None:
    return None


def event(data: object, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(data).encode() + b"\n\n"


def chat(text: str, index: int = 0, **choice: object) -> bytes:
    return event({"id": "c", "choices": [{"index": index, "delta": {"content": text}, **choice}]})


def message(text: str, index: int = 0) -> bytes:
    delta = {"type": "text_delta", "text": text}
    return event({"type": "content_block_delta", "index": index, "delta": delta}, "content_block_delta")


def response(text: str, index: int = 0) -> bytes:
    kind = "response.output_text.delta"
    return event({"type": kind, "output_index": index, "content_index": 0, "delta": text}, kind)


def chat_tool(text: str, tool: int = 0, **call: object) -> bytes:
    calls = [{"index": tool, **call, "function": {"arguments": text}}]
    return event({"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": calls}}]})


def message_tool(text: str) -> bytes:
    delta = {"type": "input_json_delta", "partial_json": text}
    return event({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")


def response_tool(text: str) -> bytes:
    kind = "response.function_call_arguments.delta"
    return event({"type": kind, "output_index": 0, "item_id": "fc", "delta": text}, kind)


WRITERS: dict[str, Callable[[str], bytes]] = {
    "chat": chat, "messages": message, "responses": response,
    "chat tool": chat_tool, "messages tool": message_tool, "responses tool": response_tool,
}  # fmt: skip
ENDS = {
    "chat": event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}) + b"data: [DONE]\n\n",
    "messages": event({"type": "content_block_stop", "index": 0}) + event({"type": "message_stop"}),
    "responses": event({"type": "response.output_text.done", "output_index": 0, "text": "x"}),
}
ENDS |= {f"{dialect} tool": end for dialect, end in ENDS.items()}


def said(raw: bytes) -> dict[str, Any]:
    data = parse_event(raw)[1]
    members: dict[str, Any] = json.loads(data) if data.startswith(b"{") else {}
    return members


def text_of(stream: bytes) -> str:
    texts = []
    for members in map(said, split_events(stream)):
        for choice in members.get("choices", ()):
            texts.append(choice["delta"].get("content", ""))
            texts += [call["function"]["arguments"] for call in choice["delta"].get("tool_calls", ())]
        delta = members.get("delta", "")
        texts.append(delta.get("text", delta.get("partial_json", "")) if isinstance(delta, dict) else delta)
    return "".join(texts)


async def guarded(
    stream: bytes, *, size: int = 10_000, window: int = 20, overlap: int = 9, check: Any = redact
) -> bytes:
    guard = GuardedStream(check, window=window, overlap=overlap)
    out = [await guard.feed(stream[at : at + size]) for at in range(0, len(stream), size)]
    return b"".join(out) + await guard.finish()


def cut(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(c % (len(text) + 1) for c in cuts)})
    return [text[a:b] for a, b in pairwise(places)]


@settings(deadline=None, max_examples=300)
@given(
    parts=st.lists(st.sampled_from([SECRET, "a", "hello ", "4111", "-1111", "4", " "]), max_size=12),
    cuts=st.lists(st.integers(0, 200), max_size=20),
    window=st.integers(1, 30),
    extra=st.integers(0, 20),
    size=st.integers(1, 400),
    dialect=st.sampled_from(list(WRITERS)),
)
def test_what_is_replaced_never_leaks(
    *, parts: list[str], cuts: list[int], window: int, extra: int, size: int, dialect: str
) -> None:
    text = "".join(parts)
    stream = b"".join(WRITERS[dialect](piece) for piece in cut(text, cuts)) + ENDS[dialect]

    out = text_of(asyncio.run(guarded(stream, size=size, window=window, overlap=len(SECRET) + extra)))

    assert SECRET not in out
    assert out == text.replace(SECRET, CLEAN)


@settings(deadline=None)
@given(
    text=st.text(st.characters(codec="utf-8"), max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=10),
    window=st.integers(1, 30),
    overlap=st.integers(0, 30),
    size=st.integers(1, 400),
    dialect=st.sampled_from(list(WRITERS)),
)
def test_what_passes_is_byte_for_byte_what_came(
    *, text: str, cuts: list[int], window: int, overlap: int, size: int, dialect: str
) -> None:
    stream = b"".join(WRITERS[dialect](piece) for piece in cut(text, cuts)) + ENDS[dialect]

    assert asyncio.run(guarded(stream, size=size, window=window, overlap=overlap, check=leave)) == stream


@pytest.mark.parametrize("dialect", WRITERS)
async def test_an_empty_or_silent_event_between_two_halves_hides_nothing(dialect: str) -> None:
    write = WRITERS[dialect]
    between = {
        "chat": event({"choices": [{"index": 0, "delta": {"content": ""}, "content_filter_results": {}}]}),
        "messages": event({"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta"}}),
        "responses": b": ping\n\n",
    }[dialect.removesuffix(" tool")]
    stream = write("Your card is 4111") + between + write("-1111, is it?") + ENDS[dialect]

    out = await guarded(stream, window=5)

    assert text_of(out) == f"Your card is {CLEAN}, is it?"
    assert len(split_events(out)) == len(split_events(stream)), "no event is lost"


async def test_choices_have_windows_of_their_own() -> None:
    stream = chat("4111") + chat("-1111", 1) + chat("-1111", 0) + chat("4111", 1) + ENDS["chat"]

    out = [said(raw)["choices"][0] for raw in split_events(await guarded(stream))[:-1]]

    texts = {n: "".join(c["delta"].get("content", "") for c in out if c["index"] == n) for n in (0, 1)}
    assert texts == {0: CLEAN, 1: "-11114111"}


async def test_one_event_with_several_texts_becomes_several() -> None:
    both = [
        {"index": 0, "delta": {"content": "4111", "reasoning_content": "x"}, "finish_reason": None},
        {"index": 1, "delta": {"content": "hi"}, "finish_reason": "stop"},
    ]
    out = await guarded(event({"choices": both}) + chat("-1111") + ENDS["chat"])

    choices = [said(raw)["choices"][0] for raw in split_events(out)[:-1]]
    assert "".join(c["delta"].get("content", "") for c in choices if c["index"] == 0) == CLEAN
    assert [c["delta"]["reasoning_content"] for c in choices if "reasoning_content" in c["delta"]] == ["x"]
    assert [c.get("finish_reason") for c in choices if c["index"] == 1] == ["stop"]


async def test_what_is_said_goes_before_the_tools_that_are_called_then() -> None:
    asked: list[tuple[Part, str]] = []

    async def note(part: Part, text: str) -> str | None:
        asked.append((part, text))
        return await redact(part, text)

    both = {"index": 0, "id": "t", "function": {"name": "pay", "arguments": '{"card":"4111'}}
    delta = {"content": "Let me pay.", "tool_calls": [both, {"index": 1, "id": "u", "function": {"name": "wait"}}]}
    stream = event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    stream += chat_tool('-1111"}') + chat_tool("{}", 1) + ENDS["chat"]

    out = [said(raw)["choices"][0]["delta"] for raw in split_events(await guarded(stream, check=note))[:-2]]

    calls = [call for delta in out for call in delta.get("tool_calls", ())]
    assert out[0] == {"content": "Let me pay."}
    assert [call["id"] for call in calls if "id" in call] == ["t", "u"]
    arguments = "".join(call["function"].get("arguments", "") for call in calls if call["index"] == 0)
    assert json.loads(arguments) == {"card": CLEAN}
    assert {part for part, _ in asked} == {Part.TEXT, Part.TOOL_ARGUMENTS}


async def test_two_tools_in_one_event_and_the_older_form_of_a_call() -> None:
    calls = [{"index": n, "id": f"t{n}", "custom": {"input": f"{SECRET} {n}"}} for n in (0, 1)]
    stream = event({"choices": [{"index": 0, "delta": {"tool_calls": calls}}]})
    stream += event({"choices": [{"index": 0, "delta": {"function_call": {"name": "f", "arguments": SECRET}}}]})
    stream += event({"choices": [{"index": 0, "delta": {"content": "x", "function_call": {"arguments": "y"}}}]})

    out = await guarded(stream + ENDS["chat"])

    assert SECRET.encode() not in out
    assert out.count(b'"t0"') == out.count(b'"t1"') == 1
    assert out.count(CLEAN.encode()) == 3


async def test_tool_calls_that_are_none_pass_as_they_came() -> None:
    odd = event({"choices": [{"index": 0, "delta": {"tool_calls": "?"}}]})
    odd += event({"choices": [{"index": 0, "delta": {"content": "a", "tool_calls": [5], "reasoning": "b"}}]})
    out = await guarded(odd)
    assert out.startswith(odd.partition(b"\n\n")[0])
    assert out.count(b"[5]") == 1


async def test_a_responses_stream_repeats_what_the_client_has_got() -> None:
    whole = f"My card: {SECRET}."
    item = {"type": "message", "content": [{"type": "output_text", "text": whole}]}
    stream = response("My card: 4111") + response("-1111.")
    for kind, rest in (
        ("response.output_text.done", {"text": whole}),
        ("response.content_part.done", {"part": {"type": "output_text", "text": whole}}),
        ("response.output_item.done", {"item": item}),
        ("response.completed", {"response": {"id": "r", "output": [item]}}),
    ):
        stream += event({"type": kind, "sequence_number": 7, **rest}, kind)

    out = (await guarded(stream)).decode()

    assert SECRET not in out
    assert out.count(f"My card: {CLEAN}.") == 4
    assert len(split_events(out.encode())) == len(split_events(stream))


async def test_text_goes_on_while_the_stream_runs() -> None:
    guard = GuardedStream(leave, window=10, overlap=5)
    sizes = [len(text_of(await guard.feed(chat("x" * 10)))) for _ in range(10)]

    assert all(sum(sizes[: n + 1]) >= 10 * n for n in range(10)), "window and overlap are held, and no more"


async def test_the_legacy_surface_and_what_is_no_json() -> None:
    legacy = event({"choices": [{"index": 0, "text": "4111-"}]}) + event({"choices": [{"index": 0, "text": "1111"}]})
    odd = b"data: {broken\n\n" + b"data: [1]\n\n" + event({"choices": "?"}) + event({"choices": [5]}) + event({})
    out = await guarded(legacy + odd)

    texts = [said(raw)["choices"][0]["text"] for raw in split_events(out)[:2]]
    assert "".join(texts) == CLEAN
    assert out.endswith(odd)
    two = event({"choices": [{"index": 0, "text": SECRET}, {"index": 1, "text": "b"}]})
    assert [said(raw)["choices"][0]["text"] for raw in split_events(await guarded(two))] == [CLEAN, "b"]


def test_a_window_without_text_has_nothing_to_replace() -> None:
    window: TextWindow[str] = TextWindow(5, 2)
    assert not window.add("annotation", None)
    assert window.release("never", is_final=True) == [("annotation", None)]
