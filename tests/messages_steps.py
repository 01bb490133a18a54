"""What an Anthropic client does, step by step, at a gateway before the simulator."""

from __future__ import annotations

import json
from typing import Any

import anthropic

from gateway_middleware.simulator import Behaviour, Simulator

ASK: Any = [{"role": "user", "content": "Say hello"}]
SCHEMA: Any = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


async def messages_steps(client: anthropic.AsyncAnthropic, model: str, simulator: Simulator) -> None:
    """An answer, a stream, a count of tokens, structured output, and a tool called in a stream."""
    answer = await client.messages.create(model=model, max_tokens=64, messages=ASK)
    assert answer.content[0].type == "text"
    async with client.messages.stream(model=model, max_tokens=64, messages=ASK) as stream:
        assert (await stream.get_final_message()).usage.output_tokens > 0
    assert (await client.messages.count_tokens(model=model, messages=ASK)).input_tokens > 0

    form: Any = {"format": {"type": "json_schema", "schema": SCHEMA}}
    shaped = await client.messages.create(model=model, max_tokens=64, messages=ASK, output_config=form)
    assert [json.loads(part.text) for part in shaped.content if part.type == "text"] == [{"city": "sample"}]

    simulator.behave(Behaviour(tool_calls=1))
    tools: Any = [{"name": "weather", "input_schema": SCHEMA}]
    async with client.messages.stream(model=model, max_tokens=64, messages=ASK, tools=tools) as stream:
        calls = [part for part in (await stream.get_final_message()).content if part.type == "tool_use"]
    assert [call.input for call in calls] == [{"city": "sample"}]
