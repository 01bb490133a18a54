"""The narrated tour of the demo: each stop is one real request, shown with what came back."""

from __future__ import annotations

import json
from typing import Any

import httpx
import msgspec


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """One request of the tour."""

    title: str
    path: str
    body: dict[str, Any] | None = None
    headers: dict[str, str] = {}
    why: str = ""
    is_stream: bool = False
    has_key: bool = True


def _ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


STOPS = (
    Stop(
        title="A chat in OpenAI's dialect, to the route `fast`",
        path="/v1/chat/completions",
        body={"model": "fast", "messages": _ask("What is a gateway?")},
        why="The answer is the provider's own, byte for byte; x-gateway-deployment tells who gave it.",
    ),
    Stop(
        title="The same as a stream",
        path="/v1/chat/completions",
        body={"model": "fast", "messages": _ask("Count to five."), "stream": True},
        is_stream=True,
        why="Events are relayed as they come; usage was asked of the provider, read, and hidden again.",
    ),
    Stop(
        title="Anthropic's dialect, for the Anthropic SDK and Claude Code",
        path="/v1/messages",
        body={"model": "claude", "max_tokens": 64, "messages": _ask("Good morning!")},
        headers={"anthropic-version": "2023-06-01"},
    ),
    Stop(
        title="Azure's dialect: a deployment in the path",
        path="/openai/deployments/gpt5mini/chat/completions?api-version=2024-10-21",
        body={"messages": _ask("Hello from an AzureOpenAI client.")},
    ),
    Stop(
        title="An OpenAI client on Claude: translated, and what is lost is named",
        path="/v1/chat/completions",
        body={"model": "claude", "max_tokens": 64, "messages": _ask("Do you speak OpenAI?"), "seed": 7},
        why="x-gateway-dropped lists what Claude cannot be told; x-gateway-strict: true makes that an error.",
    ),
    Stop(
        title="Claude Code's dialect on an OpenAI model, as a stream",
        path="/v1/messages",
        body={"model": "fast", "max_tokens": 64, "messages": _ask("And you Anthropic's?"), "stream": True},
        headers={"anthropic-version": "2023-06-01"},
        is_stream=True,
    ),
    Stop(
        title="Embeddings",
        path="/v1/embeddings",
        body={"model": "embed", "input": "one door to many models"},
    ),
    Stop(
        title="A provider that fails: errors keep the provider's words and the client's dialect",
        path="/v1/chat/completions",
        body={"model": "openai/sim-status-503", "messages": _ask("Are you there?")},
        why="The log line that begins with `Provider error` is what the on-call greps for.",
    ),
    Stop(
        title="A stream that is cut: the client is told, never left with half an answer",
        path="/v1/messages",
        body={
            "model": "anthropic/sim-truncate-3",
            "max_tokens": 64,
            "messages": _ask("Tell me a story."),
            "stream": True,
        },
        is_stream=True,
    ),
    Stop(
        title="A route whose primary is dead: its backup answers, and nobody notices",
        path="/v1/chat/completions",
        body={"model": "resilient", "messages": _ask("Is anybody there?")},
        why="x-gateway-attempts lists who was asked. After five failures the primary is not asked any more.",
    ),
    Stop(
        title="What this tenant has used, and what remains of its limits",
        path="/v1/usage",
    ),
    Stop(
        title="Without a key",
        path="/v1/chat/completions",
        body={"model": "fast", "messages": _ask("Let me in.")},
        has_key=False,
    ),
    Stop(title="What the on-call sees", path="/v1/providers/openai/status", has_key=False),
)
_SHOWN_HEADERS = (
    "x-request-id",
    "x-gateway-deployment",
    "x-gateway-attempts",
    "x-gateway-dropped",
    "x-ratelimit-remaining-tokens",
    "retry-after",
)
_WIDTH = 110


async def play(url: str, key: str) -> None:
    """Make every stop and print what happened."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
        for number, stop in enumerate(STOPS, 1):
            print(f"\n── {number}. {stop.title}")
            await _visit(client, stop, key)
    print("\n── End of the tour.")


async def _visit(client: httpx.AsyncClient, stop: Stop, key: str) -> None:
    headers = dict(stop.headers)
    if stop.has_key:
        headers["authorization"] = f"Bearer {key}"
    method = "GET" if stop.body is None else "POST"
    print(f"   {method} {stop.path}" + (f"  {_short(json.dumps(stop.body))}" if stop.body else ""))
    async with client.stream(method, stop.path, json=stop.body, headers=headers) as response:
        lines = [f"{name}: {response.headers[name]}" for name in _SHOWN_HEADERS if name in response.headers]
        print(f"   ← {response.status_code}  {'  '.join(lines)}")
        await _show_body(response, is_stream=stop.is_stream)
    if stop.why:
        print(f"   {stop.why}")


async def _show_body(response: httpx.Response, *, is_stream: bool) -> None:
    if not is_stream:
        print(f"     {_short((await response.aread()).decode())}")
        return
    lines = [line async for line in response.aiter_lines() if line.startswith("data:")]
    shown = lines if len(lines) <= 5 else [*lines[:3], f"… {len(lines) - 5} more …", *lines[-2:]]
    for line in shown:
        print(f"     {_short(line)}")


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
