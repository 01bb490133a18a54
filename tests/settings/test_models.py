"""`GATEWAY_MODELS`, and the end of routes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway_middleware import Settings, SettingsError
from gateway_middleware.core.domain import Deployment
from gateway_middleware.core.models import KnownModels, ModelOverride, ThinkingStyle, facts_of
from gateway_middleware.settings.retirement import retirement_warnings

ENVIRON = {"OPENAI_API_KEY": "sk-x", "GATEWAY_OPEN": "true"}


def models(**entries: Any) -> dict[str, str]:
    return ENVIRON | {"GATEWAY_MODELS": json.dumps(entries)}


def routes(**options: Any) -> Settings:
    route = {"to": ["openai/gpt-5"], **options}
    return Settings.from_env(ENVIRON | {"GATEWAY_ROUTES": json.dumps({"fast": route})})


def test_what_is_known_better() -> None:
    entry = {"like": "gpt-5", "context_window": 10, "max_output_tokens": 5, "efforts": ["low", "high"]}
    ((name, override),) = Settings.from_env(models(mine=entry)).models
    assert (name, override.context_window, override.efforts) == ("mine", 10, ("low", "high"))
    facts = KnownModels({name: override}).facts(Deployment(provider="azure", model="mine"))
    assert (facts.context_window, facts.max_output, facts.efforts) == (10, 5, ("low", "high"))
    assert facts.reasons == facts_of("gpt-5").reasons is True


def test_the_order_of_what_is_known() -> None:
    known = KnownModels({"a/m": ModelOverride(max_output_tokens=1), "m": ModelOverride(max_output_tokens=2)})
    outputs = [
        known.facts(Deployment(provider=provider, model=model, max_output=own)).max_output
        for provider, model, own in [("a", "m", None), ("b", "m", None), ("a", "m", 3), ("a", "claude-opus-4-8", None)]
    ]
    assert outputs == [1, 2, 3, facts_of("claude-opus-4-8").max_output]
    assert KnownModels().facts(Deployment(provider="a", model="claude-x-5")) == facts_of("claude-x-5")


def test_words_are_those_of_the_table() -> None:
    entry = {"thinking": "budget", "sampling": "one", "structured_output": False, "reasoning": True,
             "parallel_tool_calls": False, "display_name": "Mine"}  # fmt: skip
    ((_, override),) = Settings.from_env(models(mine=entry)).models
    facts = KnownModels({"mine": override}).facts(Deployment(provider="a", model="mine"))
    assert (facts.thinking, facts.has_schemas, facts.reasons, facts.has_parallel_option) == (
        ThinkingStyle.BUDGET, False, True, False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"context": 1}, "unknown name"),
        ({"context_window": 0}, "from 1 to"),
        ({"max_output_tokens": "many"}, "expected an integer"),
        ({"thinking": "hard"}, "expected one of"),
        ({"efforts": ["huge"]}, "expected one of"),
        ({"efforts": {}}, "expected a list"),
        ({"like": "../x"}, "expected a model name"),
        ({"display_name": ""}, "printable"),
        (7, "expected an object"),
    ],
)
def test_bad_entries(entry: Any, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        Settings.from_env(models(mine=entry))


def test_a_bad_name() -> None:
    with pytest.raises(SettingsError, match="expected a model name"):
        Settings.from_env(models(**{"a//b": {}}))


def test_a_route_that_ends() -> None:
    (route,) = routes(sunset="2027-01-31", successor="next").routes
    assert route.route.retirement is not None
    assert dict(route.route.retirement.headers) == {
        b"deprecation": b"@1801353600",
        b"sunset": b"Sun, 31 Jan 2027 00:00:00 GMT",
        b"x-gateway-successor": b"next",
    }
    (earlier,) = routes(sunset="2027-01-31", deprecated="2026-11-01").routes
    assert earlier.retirement is not None
    assert dict(earlier.retirement.headers)[b"deprecation"] == b"@1793491200"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"sunset": "soon"}, "expected a day"),
        ({"sunset": 7}, "expected a day"),
        ({"sunset": "2027-01-31", "deprecated": "2027-02-01"}, "not after"),
        ({"successor": "fast"}, "another model"),
        ({"successor": "a\r\nset-cookie: x"}, "another model"),
    ],
)
def test_bad_ends(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        routes(**options)


@pytest.mark.parametrize(
    ("options", "warnings"),
    [
        ({"sunset": "2027-01-31"}, ["route fast: ends on 2027-01-31; it has no successor"]),
        ({"sunset": "2027-01-01"}, ["route fast: was to end on 2027-01-01; it has no successor"]),
        ({"sunset": "2027-06-01"}, []),
        ({"successor": "next"}, ["route fast: its successor next is no route"]),
        ({}, []),
    ],
)
def test_warnings(options: dict[str, Any], warnings: list[str]) -> None:
    now = datetime(2027, 1, 15, tzinfo=UTC).timestamp()
    assert list(retirement_warnings(routes(**options).routes, now)) == warnings
