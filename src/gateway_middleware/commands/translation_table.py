"""`translation-table`: what of a request reaches the other dialects, by translating a sample of each field."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway_middleware.core.domain import Dialect, Surface
from gateway_middleware.core.errors import SettingsError, TranslationError
from gateway_middleware.core.models import facts_of
from gateway_middleware.translation.dialects import CLIENTS, PROVIDERS
from gateway_middleware.translation.fields import Losses
from gateway_middleware.translation.target import Target

if TYPE_CHECKING:
    import argparse

BEGIN, END = "<!-- translation:begin -->", "<!-- translation:end -->"
_PIXEL = "data:image/png;base64,iVBORw0KGgo="
_PDF = "data:application/pdf;base64,JVBERi0="
_MARK = {"type": "ephemeral"}
_SCHEMA = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
_FUNCTION = {"type": "function", "function": {"name": "f", "parameters": _SCHEMA}}
_HI = {"role": "user", "content": "hi"}
_MODELS = {
    Surface.CHAT: ("gpt-5.6-sol", Dialect.OPENAI),
    Surface.RESPONSES: ("gpt-5.6-sol", Dialect.OPENAI),
    Surface.MESSAGES: ("claude-sonnet-4-6", Dialect.ANTHROPIC),
}
_BASES: dict[Surface, dict[str, Any]] = {
    Surface.CHAT: {"messages": [_HI]},
    Surface.RESPONSES: {"input": [_HI]},
    Surface.MESSAGES: {"max_tokens": 9000, "messages": [_HI]},
}


def _chat(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def _items(*items: dict[str, Any]) -> dict[str, Any]:
    return {"input": [_HI, *items]}


def _blocks(*blocks: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"messages": [_HI, {"role": role, "content": list(blocks)}]}


_COMMON: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.5},
    "top_p": {"top_p": 0.5},
    "service_tier": {"service_tier": "default"},
    "user": {"user": "u"},
    "metadata": {"metadata": {"a": "b"}},
    "safety_identifier": {"safety_identifier": "s"},
    "prompt_cache_key": {"prompt_cache_key": "k"},
    "store": {"store": True},
    "parallel_tool_calls": {"tools": None, "parallel_tool_calls": False},
    "tool_choice": {"tools": None, "tool_choice": "required"},
}
_SAMPLES: dict[Surface, dict[str, dict[str, Any]]] = {
    Surface.CHAT: {
        **_COMMON,
        "max_tokens": {"max_tokens": 100},
        "stop": {"stop": ["x"]},
        "n (above 1)": {"n": 2},
        "seed": {"seed": 1},
        "frequency_penalty": {"frequency_penalty": 0.5},
        "presence_penalty": {"presence_penalty": 0.5},
        "logit_bias": {"logit_bias": {"1": 2}},
        "logprobs": {"logprobs": True},
        "verbosity": {"verbosity": "low"},
        "reasoning_effort": {"reasoning_effort": "high"},
        "response_format (json_schema)": {
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": _SCHEMA}}
        },
        "response_format (json_object)": {"response_format": {"type": "json_object"}},
        "tools (function)": {"tools": [_FUNCTION]},
        "tools (custom)": {"tools": [{"type": "custom", "custom": {"name": "c"}}]},
        "functions": {"functions": [{"name": "f"}]},
        "web_search_options": {"web_search_options": {"search_context_size": "low"}},
        "modalities (audio)": {"modalities": ["audio"]},
        "image": _chat({"type": "image_url", "image_url": {"url": _PIXEL}}),
        "image detail": _chat({"type": "image_url", "image_url": {"url": _PIXEL, "detail": "low"}}),
        "file (PDF)": _chat({"type": "file", "file": {"filename": "a.pdf", "file_data": _PDF}}),
        "file_id": _chat({"type": "file", "file": {"file_id": "file-1"}}),
        "input_audio": _chat({"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}),
        "cache_control on a part": _chat({"type": "text", "text": "a", "cache_control": _MARK}),
        "message name": {"messages": [{**_HI, "name": "bob"}]},
        "system message between turns": {"messages": [_HI, {"role": "system", "content": "s"}, _HI]},
        "thinking_blocks (Anthropic's)": {
            "messages": [
                _HI,
                {
                    "role": "assistant",
                    "content": "a",
                    "thinking_blocks": [{"type": "thinking", "thinking": "t", "signature": "s"}],
                },
                _HI,
            ]
        },
    },
    Surface.RESPONSES: {
        **_COMMON,
        "instructions": {"instructions": "i"},
        "max_output_tokens": {"max_output_tokens": 100},
        "reasoning.effort": {"reasoning": {"effort": "high"}},
        "reasoning.summary": {"reasoning": {"effort": "high", "summary": "auto"}},
        "text.format (json_schema)": {"text": {"format": {"type": "json_schema", "name": "n", "schema": _SCHEMA}}},
        "text.verbosity": {"text": {"verbosity": "low"}},
        "truncation (auto)": {"truncation": "auto"},
        "max_tool_calls": {"max_tool_calls": 3},
        "include (other than encrypted reasoning)": {"include": ["message.output_text.logprobs"]},
        "previous_response_id": {"previous_response_id": "resp_1"},
        "conversation": {"conversation": "conv_1"},
        "background": {"background": True},
        "tools (function)": {"tools": [{"type": "function", "name": "f", "parameters": _SCHEMA, "strict": True}]},
        "tools (custom)": {"tools": [{"type": "custom", "name": "c"}]},
        "tools (offered by an item)": _items({"type": "additional_tools", "tools": [{"type": "custom", "name": "c"}]}),
        "tools (the client's search)": {"tools": [{"type": "tool_search", "execution": "client"}]},
        "tools (at the provider)": {"tools": [{"type": "web_search"}]},
        "input_image": _items(
            {"role": "user", "content": [{"type": "input_image", "image_url": _PIXEL, "detail": "auto"}]}
        ),
        "input_file (data)": _items(
            {"role": "user", "content": [{"type": "input_file", "filename": "a.pdf", "file_data": _PDF}]}
        ),
        "input_file (URL)": _items(
            {"role": "user", "content": [{"type": "input_file", "file_url": "https://a.test/a.pdf"}]}
        ),
        "reasoning item (OpenAI's)": _items(
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
            {"role": "assistant", "content": "a"},
            _HI,
        ),
        "item of a tool at the provider": _items({"type": "web_search_call", "id": "ws_1", "status": "completed"}),
        "item_reference": _items({"type": "item_reference", "id": "msg_1"}),
    },
    Surface.MESSAGES: {
        "temperature": {"temperature": 0.5},
        "top_p": {"top_p": 0.5},
        "top_k": {"top_k": 5},
        "stop_sequences": {"stop_sequences": ["x"]},
        "system": {"system": "s"},
        "cache_control": {"system": [{"type": "text", "text": "s", "cache_control": _MARK}]},
        "metadata.user_id": {"metadata": {"user_id": "u"}},
        "service_tier": {"service_tier": "standard_only"},
        "thinking (budget)": {"thinking": {"type": "enabled", "budget_tokens": 8192}},
        "output_config.effort": {"output_config": {"effort": "high"}},
        "output_config.format": {"output_config": {"format": {"type": "json_schema", "schema": _SCHEMA}}},
        "tools": {"tools": [{"name": "f", "input_schema": _SCHEMA}]},
        "tools (Anthropic's own)": {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        "tool_choice": {"tools": None, "tool_choice": {"type": "any"}},
        "disable_parallel_tool_use": {
            "tools": None,
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        },
        "mcp_servers": {"mcp_servers": [{"type": "url", "url": "https://a.test", "name": "m"}]},
        "container": {"container": "c"},
        "context_management": {"context_management": {"edits": []}, "inference_geo": "eu"},
        "image": _blocks(
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
        ),
        "document (PDF)": _blocks(
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}
        ),
        "document (text)": _blocks(
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "t"}}
        ),
        "document (URL)": _blocks({"type": "document", "source": {"type": "url", "url": "https://a.test/a.pdf"}}),
        "document citations": _blocks(
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
                "citations": {"enabled": True},
            }
        ),
        "search_result": _blocks(
            {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "x"}]}
        ),
        "thinking block (Anthropic's)": _blocks(
            {"type": "thinking", "thinking": "t", "signature": "s"}, {"type": "text", "text": "a"}, role="assistant"
        ),
        "block of a tool at the provider": _blocks(
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
            {"type": "text", "text": "a"},
            role="assistant",
        ),
    },
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the table between the markers of this file")


def run(args: argparse.Namespace) -> int:
    """Print the tables, or write them. Raises `SettingsError` when the file has no markers."""
    if args.write is None:
        print(render(), end="")
        return 0
    try:
        args.write.write_text(replaced(args.write.read_text("utf-8")), "utf-8")
    except (OSError, ValueError) as error:
        raise SettingsError([f"{args.write}: {error}"]) from None
    return 0


def replaced(document: str) -> str:
    """The document with the current tables between its markers. Raises `ValueError` when it has none."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{render()}{END}{after}"


def render() -> str:
    """One table for each client surface, a column for each surface that it may be translated to."""
    return "\n".join(_table(surface, samples) for surface, samples in _SAMPLES.items())


def _table(surface: Surface, samples: dict[str, dict[str, Any]]) -> str:
    targets = [target for target in PROVIDERS if target is not surface]
    head = f"| `{surface.label}` client | " + " | ".join(f"to `{target.label}`" for target in targets) + " |\n"
    rows = [
        f"| {name} | " + " | ".join(_fate(surface, target, sample) for target in targets) + " |\n"
        for name, sample in samples.items()
    ]
    return head + "|---" * (len(targets) + 1) + "|\n" + "".join(rows)


def _fate(surface: Surface, target: Surface, sample: dict[str, Any]) -> str:
    """What becomes of a sample: carried, changed, dropped or refused."""
    tools = _SAMPLES[surface].get("tools (function)") or _SAMPLES[surface]["tools"]
    base = {**_BASES[surface], **(tools if "tools" in sample and sample["tools"] is None else {})}
    with_it = {**base, **{name: value for name, value in sample.items() if value is not None}}
    try:
        written, dropped = _translated(surface, target, with_it)
    except TranslationError:
        return "refused"
    if not dropped:
        return "carried"
    plain, _ = _translated(surface, target, base)
    return "dropped" if written == plain else "changed"


def _translated(surface: Surface, target: Surface, body: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    model, dialect = _MODELS[target]
    losses = Losses(CLIENTS[surface].names)
    conversation = CLIENTS[surface].read_request(body, losses)
    written = PROVIDERS[target].write_request(
        conversation, Target(model=model, dialect=dialect, facts=facts_of(model)), losses
    )
    return written, losses.dropped
