"""What is known of models: limits and which options they take. Unknown models follow safe rules.

The rules read a model's name, as vendors, Azure deployments and clouds write it: `claude-sonnet-4-5-20250929`,
`anthropic.claude-opus-4-1-20250805-v1:0`, `gpt-5-mini`, `ft:gpt-4o:acme`. Figures per model are in `model_table`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType

import msgspec

from gateway_middleware.core.domain import Deployment
from gateway_middleware.core.model_table import CONTEXT_WINDOWS


class ThinkingStyle(StrEnum):
    """How a Claude model is asked to think: with a budget in tokens, with an effort, in either way, or not at all."""

    NONE = "none"
    BUDGET = "budget"
    EITHER = "either"
    ADAPTIVE = "adaptive"


class Sampling(StrEnum):
    """Which of temperature and top_p a model takes: FIXED none, ONE only one of them.

    WITHOUT_EFFORT: any, unless the model is asked to reason.
    """

    ANY = "any"
    ONE = "one"
    FIXED = "fixed"
    WITHOUT_EFFORT = "without_effort"


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`max_output` and `context_window` are in tokens, None where unknown.

    `reasons`: takes OpenAI's reasoning effort, and `max_completion_tokens` in the place of `max_tokens`.
    `prefers_responses`: keeps its reasoning on Responses, `only_responses`: lives nowhere else. `has_schemas`: takes an
    output schema. `efforts` are those that it knows; `has_effort_apart_from_tools`: on chat, never both.
    `has_parallel_option`: takes `parallel_tool_calls`. `is_openai`: the name is one of OpenAI's.
    """

    max_output: int | None = None
    context_window: int | None = None
    thinking: ThinkingStyle = ThinkingStyle.NONE
    sampling: Sampling = Sampling.ANY
    has_schemas: bool = True
    reasons: bool = False
    prefers_responses: bool = False
    only_responses: bool = False
    efforts: tuple[str, ...] = ()
    has_parallel_option: bool = True
    has_effort_apart_from_tools: bool = False
    is_openai: bool = False
    is_known: bool = False


class ModelOverride(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator knows better of a model; None: as the gateway knows it.

    `like` is another model, whose facts hold where nothing else is said: for names of one's own, as those of Azure's
    deployments are. `structured_output`: takes an output schema. `reasoning`: takes OpenAI's reasoning effort.
    """

    like: str | None = None
    display_name: str | None = None
    context_window: int | None = None
    max_output_tokens: int | None = None
    thinking: ThinkingStyle | None = None
    sampling: Sampling | None = None
    structured_output: bool | None = None
    reasoning: bool | None = None
    parallel_tool_calls: bool | None = None
    efforts: tuple[str, ...] | None = None

    def over(self, facts: ModelFacts) -> ModelFacts:
        """These facts, with what is known better."""
        better = {
            "context_window": self.context_window,
            "max_output": self.max_output_tokens,
            "thinking": self.thinking,
            "sampling": self.sampling,
            "has_schemas": self.structured_output,
            "reasons": self.reasoning,
            "has_parallel_option": self.parallel_tool_calls,
            "efforts": self.efforts,
        }
        return msgspec.structs.replace(facts, **{name: value for name, value in better.items() if value is not None})


_NO_OVERRIDES: Mapping[str, ModelOverride] = MappingProxyType({})


class KnownModels:
    """What is known of models: `overrides` (by `provider/model`, by model, by route) go before the rules and the table.

    A deployment's own `max_output` goes before both.
    """

    def __init__(self, overrides: Mapping[str, ModelOverride] = _NO_OVERRIDES) -> None:
        self._overrides = overrides

    def override(self, *names: str) -> ModelOverride:
        """What the operator says of the first of these names of which anything is said."""
        return next((self._overrides[name] for name in names if name in self._overrides), _NOTHING)

    def facts(self, deployment: Deployment) -> ModelFacts:
        """What is known of the model of a deployment."""
        override = self.override(deployment.key, deployment.model)
        facts = facts_of(override.like or deployment.model)
        if override is not _NOTHING:
            facts = override.over(facts)
        if deployment.max_output is None:
            return facts
        return msgspec.structs.replace(facts, max_output=deployment.max_output)


_NOTHING = ModelOverride()
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""OpenAI's words for reasoning effort, from the least to the most."""
_CLAUDE = re.compile(
    r"claude-(?:(?P<old>\d)(?:[-.](?P<older>\d))?-)?(?P<line>[a-z]+)"
    r"(?:-(?P<major>\d)(?!\d)(?:[-.](?P<minor>\d)(?!\d))?)?"
)
_GPT = re.compile(r"gpt-(?P<major>\d)(?P<omni>o)?(?:\.(?P<minor>\d+))?(?P<rest>[a-z0-9.-]*)")
_O_SERIES = re.compile(r"(?:^|[^a-z0-9])(o[134])(?:-|$)")
_RESPONSES_ONLY = re.compile(r"-pro\b|codex|deep-research|computer-use")


@lru_cache(maxsize=1024)
def facts_of(model: str) -> ModelFacts:
    """What is known of the model with this name."""
    name = model.lower()
    claude = _CLAUDE.search(name)
    facts = _claude_facts(claude) if claude else _openai_facts(name)
    window = _window(name)
    return facts if window is None else msgspec.structs.replace(facts, context_window=window)


def _window(name: str) -> int | None:
    """The context window of the longest name in the table that this one holds as a word."""
    known = [entry for entry, window in CONTEXT_WINDOWS.items() if window is not None and _holds(name, entry)]
    return CONTEXT_WINDOWS[max(known, key=len)] if known else None


def _holds(name: str, entry: str) -> bool:
    start = name.find(entry)
    end = start + len(entry)
    is_begun = start == 0 or (start > 0 and not name[start - 1].isalnum())
    return is_begun and not name[end : end + 1].isalnum()


def _claude_facts(match: re.Match[str]) -> ModelFacts:
    major = int(match["major"] or match["old"] or 0)
    minor = int(match["minor"] or match["older"] or 0)
    version = (major, minor)
    if match["line"] in {"fable", "mythos"} or version >= (4, 7):
        return ModelFacts(max_output=128_000, thinking=ThinkingStyle.ADAPTIVE, sampling=Sampling.FIXED, is_known=True)
    if version >= (4, 6):
        return ModelFacts(max_output=64_000, thinking=ThinkingStyle.EITHER, sampling=Sampling.ONE, is_known=True)
    if version >= (3, 7):
        output = 32_000 if match["line"] == "opus" and version < (4, 5) else 64_000
        return ModelFacts(
            max_output=output,
            thinking=ThinkingStyle.BUDGET,
            sampling=Sampling.ONE if version >= (4, 1) else Sampling.ANY,
            has_schemas=version >= (4, 5) or (match["line"] == "opus" and version == (4, 1)),
            is_known=True,
        )
    return ModelFacts(max_output=8192 if version == (3, 5) else 4096, has_schemas=False, is_known=major > 0)


def _openai_facts(name: str) -> ModelFacts:
    is_only = bool(_RESPONSES_ONLY.search(name))
    if _O_SERIES.search(name):
        return ModelFacts(
            max_output=100_000,
            sampling=Sampling.FIXED,
            reasons=True,
            prefers_responses=True,
            only_responses=is_only,
            efforts=("low", "medium", "high"),
            has_parallel_option=False,
            is_openai=True,
            is_known=True,
        )
    match = _GPT.search(name)
    if match is None:
        return ModelFacts()
    version = (int(match["major"]), int(match["minor"] or 0))
    if version < (5, 0) or "chat" in match["rest"]:
        return ModelFacts(max_output=16_384, is_openai=True, is_known=True)
    is_mild = (5, 1) <= version <= (5, 5)
    return ModelFacts(
        max_output=128_000,
        sampling=Sampling.WITHOUT_EFFORT if is_mild else Sampling.FIXED,
        reasons=True,
        prefers_responses=True,
        only_responses=is_only,
        efforts=_efforts(version),
        has_effort_apart_from_tools=version >= (5, 6),
        is_openai=True,
        is_known=True,
    )


def _efforts(version: tuple[int, int]) -> tuple[str, ...]:
    if version < (5, 1):
        return ("minimal", "low", "medium", "high")
    if version < (5, 2):
        return ("none", "low", "medium", "high")
    return ("none", "low", "medium", "high", "xhigh", "max") if version >= (5, 6) else EFFORTS[:1] + EFFORTS[2:6]
