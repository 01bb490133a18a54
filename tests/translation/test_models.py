"""What is known of models by their names, however a cloud writes them."""

from __future__ import annotations

import pytest

from gateway_middleware.core.models import ModelFacts, Sampling, ThinkingStyle, facts_of


@pytest.mark.parametrize(
    ("model", "output", "thinking", "sampling", "has_schemas"),
    [
        ("claude-3-opus-20240229", 4096, ThinkingStyle.NONE, Sampling.ANY, False),
        ("claude-3-5-haiku-20241022", 8192, ThinkingStyle.NONE, Sampling.ANY, False),
        ("claude-3-7-sonnet-latest", 64_000, ThinkingStyle.BUDGET, Sampling.ANY, False),
        ("claude-sonnet-4-20250514", 64_000, ThinkingStyle.BUDGET, Sampling.ANY, False),
        ("claude-opus-4-0", 32_000, ThinkingStyle.BUDGET, Sampling.ANY, False),
        ("anthropic.claude-opus-4-1-20250805-v1:0", 32_000, ThinkingStyle.BUDGET, Sampling.ONE, True),
        ("claude-haiku-4-5@20251001", 64_000, ThinkingStyle.BUDGET, Sampling.ONE, True),
        ("claude-sonnet-4-6", 64_000, ThinkingStyle.EITHER, Sampling.ONE, True),
        ("claude-opus-4-7", 128_000, ThinkingStyle.ADAPTIVE, Sampling.FIXED, True),
        ("claude-haiku-5-5", 128_000, ThinkingStyle.ADAPTIVE, Sampling.FIXED, True),
        ("claude-mythos-preview", 128_000, ThinkingStyle.ADAPTIVE, Sampling.FIXED, True),
    ],
)
def test_claude(model: str, output: int, thinking: ThinkingStyle, sampling: Sampling, *, has_schemas: bool) -> None:
    facts = facts_of(model)
    assert (facts.max_output, facts.thinking, facts.sampling, facts.has_schemas) == (
        output,
        thinking,
        sampling,
        has_schemas,
    )
    assert facts.is_known
    assert not facts.is_openai


@pytest.mark.parametrize(
    ("model", "reasons", "sampling", "only_responses"),
    [
        ("gpt-4o-mini", False, Sampling.ANY, False),
        ("chatgpt-4o-latest", False, Sampling.ANY, False),
        ("gpt-35-turbo", False, Sampling.ANY, False),
        ("ft:gpt-4.1:acme::1", False, Sampling.ANY, False),
        ("gpt-5-chat-latest", False, Sampling.ANY, False),
        ("gpt-5-mini", True, Sampling.FIXED, False),
        ("gpt-5.2", True, Sampling.WITHOUT_EFFORT, False),
        ("gpt-5.6-sol", True, Sampling.FIXED, False),
        ("gpt-6.2-astra", True, Sampling.FIXED, False),
        ("o3-mini", True, Sampling.FIXED, False),
        ("o1-pro", True, Sampling.FIXED, True),
        ("gpt-5.1-codex", True, Sampling.WITHOUT_EFFORT, True),
        ("gpt-5-pro", True, Sampling.FIXED, True),
    ],
)
def test_openai(model: str, sampling: Sampling, *, reasons: bool, only_responses: bool) -> None:
    facts = facts_of(model)
    assert (facts.reasons, facts.sampling, facts.only_responses) == (reasons, sampling, only_responses)
    assert facts.is_openai


@pytest.mark.parametrize("model", ["my-deployment", "llama-3.3-70b", "mistral-large", "foo1", "qwen3"])
def test_a_model_that_nobody_knows_follows_safe_rules(model: str) -> None:
    assert facts_of(model) == ModelFacts()


@pytest.mark.parametrize(
    ("model", "window"),
    [("gpt-4o-2024-08-06", 128_000), ("gpt-5-mini", 400_000), ("claude-sonnet-4-6", 1_000_000), ("o3", 200_000)],
)
def test_context_windows_come_from_the_table(model: str, window: int) -> None:
    assert facts_of(model).context_window == window


def test_efforts_are_those_of_the_family() -> None:
    assert facts_of("gpt-5").efforts[0] == "minimal"
    assert "none" in facts_of("gpt-5.1").efforts
    assert "xhigh" in facts_of("gpt-5.2").efforts
    assert facts_of("gpt-6-sol").efforts[-1] == "max"
    assert facts_of("o4-mini").efforts == ("low", "medium", "high")
