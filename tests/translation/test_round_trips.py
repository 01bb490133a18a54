"""There and back again: a request that goes through another dialect loses only what is listed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_middleware.core.domain import Dialect, Surface
from gateway_middleware.core.models import facts_of
from gateway_middleware.translation.dialects import CLIENTS, PROVIDERS
from gateway_middleware.translation.fields import Losses
from gateway_middleware.translation.target import Target
from gateway_middleware.translation.vocabulary import (
    Choice,
    Conversation,
    Document,
    Image,
    Message,
    Part,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from translation.translating import CHAT, MESSAGES, RESPONSES

TARGETS = {
    CHAT: Target(model="gpt-4o", dialect=Dialect.OPENAI, facts=facts_of("gpt-4o")),
    RESPONSES: Target(model="gpt-4o", dialect=Dialect.OPENAI, facts=facts_of("gpt-4o")),
    MESSAGES: Target(model="claude-sonnet-4-0", dialect=Dialect.ANTHROPIC, facts=facts_of("claude-sonnet-4-0")),
}
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
texts = st.builds(Text, text=st.text("abcé☕ ", min_size=1, max_size=9).map(str.strip).filter(bool))
images = st.sampled_from([Image(data="AAAA", media_type="image/png"), Image(url="https://a.test/a.png")])
files = st.just(Document(data="AAAA", media_type="application/pdf", name="a.pdf"))


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """Turns of both sides, with calls that are answered in any order."""
    turns: list[Message] = []
    count = 0
    for _ in range(draw(st.integers(1, 3))):
        said = draw(st.lists(st.one_of(texts, images, files), min_size=1, max_size=2))
        turns.append(Message(role=Role.USER, parts=tuple(said)))
        calls = [
            ToolCall(id=f"call_{count + at}", name=draw(st.sampled_from("fg")), arguments=f'{{"x":{at}}}')
            for at in range(draw(st.integers(0, 3)))
        ]
        count += len(calls)
        answer: list[Part] = [draw(texts), *calls]
        turns.append(Message(role=Role.ASSISTANT, parts=tuple(answer)))
        if calls:
            results = [ToolResult(call_id=call.id, parts=(draw(texts),)) for call in draw(st.permutations(calls))]
            turns += [Message(role=Role.USER, parts=tuple(results)), Message(role=Role.ASSISTANT, parts=(draw(texts),))]
    turns.append(Message(role=Role.USER, parts=(draw(texts),)))
    choices = [ToolChoice(choice=choice) for choice in (Choice.AUTO, Choice.NONE, Choice.REQUIRED)]
    return Conversation(
        system=tuple(draw(st.lists(texts, max_size=1))),
        messages=tuple(turns),
        tools=(Tool(name="f", description="d", schema=SCHEMA), Tool(name="g", schema=SCHEMA)),
        tool_choice=draw(st.sampled_from([*choices, ToolChoice(choice=Choice.NAMED, name="f"), None])),
        may_call_parallel=draw(st.sampled_from([False, None])),
        max_tokens=draw(st.integers(16, 4000)),
        temperature=draw(st.sampled_from([None, 0.0, 0.5, 1.0])),
        top_p=draw(st.sampled_from([None, 0.5])),
        user=draw(st.sampled_from([None, "u"])),
        is_stream=draw(st.booleans()),
    )


def through(conversation: Conversation, surface: Surface) -> tuple[Conversation, tuple[str, ...]]:
    """The conversation as a provider of that surface reads it, and what was listed on the way."""
    losses = Losses({})
    written = PROVIDERS[surface].write_request(conversation, TARGETS[surface], losses)
    return CLIENTS[surface].read_request(msgspec.json.decode(msgspec.json.encode(written)), losses), losses.dropped


def plain(conversation: Conversation) -> Any:
    """What is compared: neighbours of one role as one turn, defaults as nothing said."""
    turns: list[tuple[Role, list[Any]]] = []
    for message in conversation.messages:
        parts = [msgspec.to_builtins(part) for part in message.parts]
        if turns and turns[-1][0] is message.role:
            turns[-1][1].extend(parts)
        else:
            turns.append((message.role, parts))
    choice = conversation.tool_choice
    is_free = choice is None or choice == ToolChoice(choice=Choice.AUTO)
    return {
        "turns": turns,
        "system": [text.text for text in conversation.system],
        "tools": [(tool.name, tool.description, tool.schema) for tool in conversation.tools],
        "choice": None if is_free else choice,
        # Without calls there is nothing to be parallel.
        "parallel": conversation.may_call_parallel is not False or choice == ToolChoice(choice=Choice.NONE),
        **{name: getattr(conversation, name) for name in ("max_tokens", "temperature", "top_p", "user", "is_stream")},
    }


@pytest.mark.parametrize("surface", [CHAT, RESPONSES, MESSAGES])
@settings(max_examples=100, deadline=None)
@given(conversation=conversations())
def test_a_request_comes_back_as_it_went(surface: Surface, conversation: Conversation) -> None:
    back, dropped = through(conversation, surface)
    assert plain(back) == plain(conversation)
    assert dropped == ()


@pytest.mark.parametrize("way", [(CHAT, MESSAGES, RESPONSES), (MESSAGES, RESPONSES, CHAT), (RESPONSES, CHAT, MESSAGES)])
@settings(max_examples=60, deadline=None)
@given(conversation=conversations())
def test_a_request_goes_round_through_all_dialects(way: tuple[Surface, ...], conversation: Conversation) -> None:
    seen = conversation
    for surface in way:
        seen, dropped = through(seen, surface)
        assert dropped == ()
    assert plain(seen) == plain(conversation)
