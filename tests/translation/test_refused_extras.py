"""Servers that refuse what a translated request says besides the conversation are asked again without it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway_middleware.core.domain import Surface
from gateway_middleware.core.errors import TranslationError, UpstreamStatusError
from gateway_middleware.translation.provider import TranslatingProvider
from provider_calls import deployment, model_request, tried_without
from translation.translating import CHAT, MESSAGES, RESPONSES, provider

MISTRAL = b"""{"object":"error","message":{"detail":[{"type":"extra_forbidden","loc":["body","user"],"msg":"Extra inputs
are not permitted"}]}}"""
GROQ = b"""{"error":{"message":"property 'prompt_cache_key' is unsupported","type":"invalid_request_error"}}"""
GEMINI = b"""[{"error":{"code":400,"message":"Invalid JSON payload received. Unknown name \\"metadata\\""}}]"""
BODIES: dict[Surface, dict[str, Any]] = {
    MESSAGES: {"max_tokens": 9, "metadata": {"user_id": "u"}, "messages": [{"role": "user", "content": "hi"}]},
    RESPONSES: {"input": "hi", "user": "u", "prompt_cache_key": "k", "metadata": {"a": "b"}},
}
TARGET = deployment("open-mistral", "openai")


def refusal(body: bytes, status: int = 422) -> UpstreamStatusError:
    return UpstreamStatusError("no", upstream_status=status, upstream_headers=[], body=body)


def asked(surface: Surface, **more: Any) -> Any:
    return model_request(surface, json.dumps({"model": "a", **BODIES[surface]}).encode(), **more)


def sent(wrapped: TranslatingProvider, request: Any) -> tuple[set[str], tuple[str, ...]]:
    upstream = wrapped.prepare(request, TARGET)
    assert upstream.translation is not None
    return set(json.loads(upstream.body)), upstream.translation.dropped


def chat_only() -> TranslatingProvider:
    return provider("openai", native=frozenset({CHAT}))


@pytest.mark.parametrize("body", [MISTRAL, GROQ, GEMINI])
@pytest.mark.parametrize(
    ("surface", "dropped"), [(MESSAGES, {"metadata.user_id"}), (RESPONSES, {"user", "prompt_cache_key", "metadata"})]
)
def test_after_a_refusal_none_of_them_is_sent_and_each_is_listed(
    surface: Surface, dropped: set[str], body: bytes
) -> None:
    wrapped, request = chat_only(), asked(surface)
    assert "user" in sent(wrapped, request)[0]
    assert tried_without(wrapped, request, TARGET, refusal(body))
    fields, listed = sent(wrapped, request)
    assert fields.isdisjoint({"user", "prompt_cache_key", "metadata"})
    assert set(listed) == dropped


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{}", 422), (b"'user' is fine", 400), (b"unknown role", 400), (MISTRAL, 500), (MISTRAL, 401), (b"", 422)],
)
def test_other_errors_teach_nothing(body: bytes, status: int) -> None:
    wrapped, request = chat_only(), asked(MESSAGES)
    assert not tried_without(wrapped, request, TARGET, refusal(body, status))
    assert "user" in sent(wrapped, request)[0]


def test_calls_under_way_are_repeated_too() -> None:
    wrapped = chat_only()
    first, second = asked(MESSAGES), asked(MESSAGES)
    assert tried_without(wrapped, first, TARGET, refusal(MISTRAL))
    assert tried_without(wrapped, second, TARGET, refusal(MISTRAL))


def test_a_client_of_the_providers_own_dialect_is_not_asked_for_twice() -> None:
    request = model_request(CHAT, b'{"model":"a","user":"u","messages":[]}')
    wrapped = chat_only()
    assert not tried_without(wrapped, request, TARGET, refusal(MISTRAL))
    assert json.loads(wrapped.prepare(request, TARGET).body)["user"] == "u"


def test_a_strict_client_is_told_what_it_would_lose() -> None:
    wrapped, request = chat_only(), asked(MESSAGES, is_strict=True)
    assert tried_without(wrapped, request, TARGET, refusal(MISTRAL))
    with pytest.raises(TranslationError, match=r"metadata\.user_id"):
        wrapped.prepare(request, TARGET)


def test_messages_keep_what_they_have() -> None:
    wrapped = provider("anthropic")
    request = asked(RESPONSES)
    target = deployment("claude-sonnet-4-5", "anthropic")
    assert not tried_without(wrapped, request, target, refusal(MISTRAL))
    assert json.loads(wrapped.prepare(request, target).body)["metadata"] == {"user_id": "u"}
