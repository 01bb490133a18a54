"""Routes: what a model name may lead to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from counted import calls_within
from gateway_middleware.core.domain import Balance, Deployment, Route, Surface, Timeouts, Translate
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.core.model_names import RULE
from gateway_middleware.providers import KINDS
from gateway_middleware.settings import RouteSettings, Settings

ENVIRON = {
    "OPENAI_API_KEY": "sk-0123456789",
    "GATEWAY_OPEN": "true",
    "GATEWAY_PROVIDERS": json.dumps(
        {"eu": {"kind": "openai", "api_key": "k", "timeouts": {"connect": 1, "idle": 2, "total": 3}}}
    ),
}


def route(value: Any, name: str = "fast") -> RouteSettings:
    (found,) = Settings.from_env(ENVIRON | {"GATEWAY_ROUTES": json.dumps({name: value})}).routes
    return found


def complaints(routes: Any, **variables: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(ENVIRON | {"GATEWAY_ROUTES": json.dumps(routes)} | variables)
    return caught.value.complaints


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        ("openai/gpt-5", ["openai/gpt-5"]),
        (["openai/gpt-5", "eu/gpt-5"], ["openai/gpt-5", "eu/gpt-5"]),
        (["eu/meta/llama-3:free"], ["eu/meta/llama-3:free"]),
        ({"to": "openai/gpt-5"}, ["openai/gpt-5"]),
        ({"to": ["openai/a", {"to": "eu/b"}], "max_attempts": 2}, ["openai/a", "eu/b"]),
        (
            [{"to": "eu/b", "priority": 1}, "openai/a", {"to": "openai/c", "priority": 1}],
            ["openai/a", "eu/b", "openai/c"],
        ),
    ],
)
def test_targets(value: Any, keys: list[str]) -> None:
    assert [d.deployment.key for d in route(value).deployments] == keys


def test_a_deployment_may_say_what_it_speaks_and_a_route_what_is_translated() -> None:
    targets = [{"to": "openai/a", "speak": "responses"}, {"to": "eu/b", "speak": "chat"}]
    read = route({"to": targets, "translate": "strict"})
    assert [target.deployment.speak for target in read.deployments] == [Surface.RESPONSES, Surface.CHAT]
    assert read.route.translate is Translate.STRICT
    assert route("openai/a").route.translate is None


def test_a_deployment_may_say_how_much_its_model_writes() -> None:
    read = route([{"to": "openai/a", "max_output": 16_000}, "eu/b"])
    assert [target.deployment.max_output for target in read.deployments] == [16_000, None]
    assert len(complaints({"r": [{"to": "openai/a", "max_output": 0}]})) == 1


def test_what_is_said_of_translation_must_be_a_word_that_is_known() -> None:
    assert complaints({"r": [{"to": "openai/a", "speak": "messages"}]}) == (
        "GATEWAY_ROUTES.r[0].speak='messages': expected one of chat, responses",
    )
    assert complaints({"r": {"to": "openai/a", "translate": "perhaps"}}) == (
        "GATEWAY_ROUTES.r.translate='perhaps': expected one of allow, strict, off",
    )


def test_a_route_becomes_the_noun_of_the_house() -> None:
    found = route(["openai/gpt-5", {"to": "eu/b", "weight": 3}])
    assert found.route == Route(
        name="fast",
        deployments=(Deployment(provider="openai", model="gpt-5"), Deployment(provider="eu", model="b", weight=3)),
        balance=Balance.WEIGHT,
    )


def test_a_route_says_how_it_chooses_and_what_it_does_about_special_failures() -> None:
    found = route(
        {
            "to": ["openai/gpt-5", {"to": "eu/b", "priority": 1}],
            "balance": "latency",
            "hedge": 1.5,
            "on_context_window": ["eu/long"],
            "on_content_policy": "eu/mild",
        }
    ).route
    assert (found.balance, found.hedge_after) == (Balance.LATENCY, 1.5)
    assert [d.priority for d in found.deployments] == [0, 1]
    assert [d.key for d in found.on_context_window + found.on_content_policy] == ["eu/long", "eu/mild"]


@pytest.mark.parametrize(("value", "seconds"), [(True, 0.0), (False, None), (2, 2.0), ("true", 0.0)])
def test_hedging_waits_for_the_routes_own_p95_or_so_many_seconds(value: object, seconds: float | None) -> None:
    assert route({"to": "eu/b", "hedge": value}).hedge_after == seconds


def test_a_route_without_weights_is_asked_in_its_order() -> None:
    assert route(["openai/a", "eu/b"]).balance is Balance.ORDER


def test_timeouts_are_laid_over_each_other() -> None:
    value = {"to": ["openai/a", {"to": "eu/b", "timeouts": {"total": 30}}], "timeouts": {"idle": 20}}
    first, second = route(value).deployments
    assert first.timeouts == Timeouts(idle=20.0)
    assert second.timeouts == Timeouts(connect=1.0, idle=20.0, total=30.0)
    assert route("eu/b").deployments[0].timeouts is None


def test_max_attempts_of_a_route() -> None:
    routes = json.dumps({"fast": {"to": "eu/b", "max_attempts": 2}})
    settings = Settings.from_env(ENVIRON | {"GATEWAY_ROUTES": routes})
    assert settings.routes[0].max_attempts == 2


R = "GATEWAY_ROUTES.r"
OPTIONS = (
    "to, timeouts, max_attempts, balance, on_context_window, on_content_policy, hedge, limits, translate, "
    "sunset, deprecated, successor, affinity, on_budget"
)
_WHOLE = 'expected "provider/model", an object with "to", or a list of them that is not empty'
_MODEL = f'expected "provider/model", the model of {RULE}'
_NAME = f"expected a model name of {RULE}"
_KNOWN = "expected a configured provider before the slash, one of openai, eu"


@pytest.mark.parametrize(
    ("routes", "line"),
    [
        ([], "GATEWAY_ROUTES=[...]: expected an object"),
        ({"r": []}, f"{R}=[...]: {_WHOLE}"),
        ({"r": None}, f"{R}=null: {_WHOLE}"),
        ({"r": 5}, f"{R}=5: {_WHOLE}"),
        ({"r": {}}, f"{R}.to: missing: {_WHOLE}"),
        ({"r": {"to": []}}, f"{R}.to=[...]: {_WHOLE}"),
        ({"r": {"to": {"to": "openai/a"}}}, f"{R}.to={{...}}: {_WHOLE}"),
        (
            {"r": {"to": "eu/a", "wait": 1}},
            f"{R}.wait: unknown name; expected one of {OPTIONS}",
        ),
        ({"r": {"to": "eu/a", "max_attempts": 0}}, f"{R}.max_attempts=0: expected an integer from 1 to 10"),
        ({"r": {"to": "eu/a", "timeouts": {"idel": 1}}}, f"{R}.timeouts.idel: unknown name; did you mean 'idle'?"),
        ({"r": [7]}, f'{R}[0]=7: expected "provider/model" or an object with "to"'),
        ({"r": [["eu/a"]]}, f'{R}[0]=[...]: expected "provider/model" or an object with "to"'),
        ({"r": [{"weight": 1}]}, f'{R}[0].to: missing: expected "provider/model"'),
        ({"r": [{"to": 1}]}, f'{R}[0].to=1: expected "provider/model"'),
        ({"r": [{"to": "eu/a", "weigth": 1}]}, f"{R}[0].weigth: unknown name; did you mean 'weight'?"),
        ({"r": [{"to": "eu/a", "weight": 0}]}, f"{R}[0].weight=0: expected an integer from 1 to 1000"),
        ({"r": [{"to": "eu/a", "weight": 1.5}]}, f"{R}[0].weight=1.5: expected an integer from 1 to 1000"),
        ({"r": [{"to": "eu/a", "weight": True}]}, f"{R}[0].weight=true: expected an integer from 1 to 1000"),
        ({"r": [{"to": "eu/a", "priority": -1}]}, f"{R}[0].priority=-1: expected an integer from 0 to 1000"),
        ({"r": "gpt-5"}, f"{R}='gpt-5': {_MODEL}"),
        ({"r": "openai/"}, f"{R}='openai/': {_MODEL}"),
        ({"r": "openai/../admin"}, f"{R}='openai/../admin': {_MODEL}"),
        ({"r": "openai/a//b"}, f"{R}='openai/a//b': {_MODEL}"),
        ({"r": "openai/ab "}, f"{R}='openai/ab ': {_MODEL}"),
        ({"r": "openai/a\r\n"}, f"{R}='openai/a\\r\\n': {_MODEL}"),
        ({"r": "openai/" + "m" * 257}, f"{R}='openai/{'m' * 53}...': {_MODEL}"),
        ({"r": "opnai/a"}, f"{R}='opnai/a': {_KNOWN}; did you mean 'openai'?"),
        ({"r": "zzz/a"}, f"{R}='zzz/a': {_KNOWN}"),
        (
            {"r": "anthropic/claude"},
            f"{R}='anthropic/claude': provider 'anthropic' is not configured: set ANTHROPIC_API_KEY",
        ),
        ({"r": ["eu/a", "eu/a", "eu/a"]}, f"{R}: deployment eu/a stands there 3 times; expected once"),
        ({"r": ["eu/a", {"to": "eu/a", "weight": 2}]}, f"{R}: deployment eu/a stands there 2 times; expected once"),
        ({"bad name ": "eu/a"}, f"GATEWAY_ROUTES.'bad name ': {_NAME}"),
        ({"a..b": "eu/a"}, f"GATEWAY_ROUTES.a..b: {_NAME}"),
        ({"": "eu/a"}, f"GATEWAY_ROUTES.'': {_NAME}"),
    ],
)
def test_bad_routes(routes: Any, line: str) -> None:
    assert complaints(routes) == (line,)


def test_a_route_to_a_faulty_provider_is_no_second_fault() -> None:
    lines = complaints({"r": "eu/a"}, GATEWAY_PROVIDERS='{"eu": {"kind": "openai"}}')
    assert lines == ("GATEWAY_PROVIDERS.eu.api_key: missing: expected the API key, as env:NAME or file:/path",)


def test_a_large_configuration_is_read_quickly() -> None:
    kinds = list(KINDS)
    listed = {
        f"p{i}": {"kind": kinds[i % 3], "base_url": f"https://h{i}.example", "api_key": f"env:KEY_{i}"}
        for i in range(12)
    }
    routes = {f"model-{i}": [f"p{(i + k) % 12}/upstream-{i}" for k in range(3)] for i in range(150)}
    environ = {f"KEY_{i}": f"secret-key-{i}" for i in range(12)} | {
        "GATEWAY_OPEN": "true",
        "GATEWAY_PROVIDERS": json.dumps(listed),
        "GATEWAY_ROUTES": json.dumps(routes),
    }
    settings = Settings.from_env(environ)
    assert (len(settings.providers), len(settings.routes)) == (12, 150)
    assert {p.kind for p in settings.providers} == set(KINDS)
    assert calls_within(lambda: Settings.from_env(environ)) < 100_000
