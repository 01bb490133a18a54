"""What a reload calls changed is changed at once; everything else is named under `need_restart`; or nothing happens."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from asgi_driver import Transcript
from gateway_middleware import Settings
from gateway_middleware.composition.part import Commit
from gateway_middleware.composition.reload import Reload
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.tenancy.keys import digest, hmac_digest
from rig import MESSAGES, Rig, answering, chat_events, failing, streaming
from running import KEY

pytestmark = pytest.mark.anyio
AT_ONCE = {
    "translation", "guards", "groups", "models",
    "providers", "routes", "tenants", "is_open", "key_secret", "max_attempts", "default_requests", "default_tokens",
    "default_concurrency", "default_spend", "prices", "max_event_bytes", "tenant_header", "trusted_proxies",
    "tenant_header_secret", "jwt_issuer", "jwt_audience", "jwt_jwks_url", "jwt_tenant_claim", "jwt_algorithms",
}  # fmt: skip
SECRET = "a-secret-of-sixteen-characters"
PRICED = json.dumps({"a/m": {"input": 1000000, "output": 1000000}})


def tenants(**of_acme: Any) -> str:
    return json.dumps({"acme": {"keys": [digest(KEY.encode())], **of_acme}})


async def reload(rig: Rig, **changes: str | None) -> Transcript:
    """Set or unset variables and have them taken."""
    for name, value in changes.items():
        if value is None:
            rig.environment.pop(name, None)
        else:
            rig.environment[name] = value
    return await rig.post("/v1/admin/reload")


def providers(rig: Rig, **of_a: Any) -> str:
    listed = json.loads(rig.environment["GATEWAY_PROVIDERS"])
    listed["a"] |= of_a
    return json.dumps(listed)


async def statuses(rig: Rig, count: int, **more: Any) -> list[int]:
    return [(await rig.call(**more)).status for _ in range(count)]


async def breaker_numbers(rig: Rig) -> Transcript:
    rig.scripts["a"] = failing(500)
    answer = await reload(rig, GATEWAY_PROVIDERS=providers(rig, breaker={"consecutive": 2}))
    assert await statuses(rig, 4, model="a/m") == [500, 500, 503, 503]
    return answer


async def another_credential(rig: Rig) -> Transcript:
    answer = await reload(rig, GATEWAY_PROVIDERS=providers(rig, api_key="sk-another-secret-of-a"))
    await rig.call(model="a/m")
    assert b"sk-another-secret-of-a" in rig.exchange.requests[-1].target.head
    return answer


async def another_route(rig: Rig) -> Transcript:
    answer = await reload(rig, GATEWAY_ROUTES='{"fast": ["c/m"]}')
    await rig.call()
    assert dict(rig.calls) == {"c": 1}
    return answer


async def limit_of_a_route(rig: Rig) -> Transcript:
    answer = await reload(rig, GATEWAY_ROUTES='{"fast": {"to": ["a/m"], "limits": {"requests": "1/minute"}}}')
    assert await statuses(rig, 2) == [200, 429]
    return answer


async def keys_are_asked_for(rig: Rig) -> Transcript:
    answer = await reload(rig, GATEWAY_OPEN=None, GATEWAY_TENANTS=json.dumps({"x": {"keys": [digest(b"gw-other")]}}))
    assert await statuses(rig, 1) == [401]
    back = await reload(rig, GATEWAY_OPEN="true", GATEWAY_TENANTS=None)
    assert (back.json()["need_restart"], await statuses(rig, 1)) == ([], [200])
    return answer


async def limit_of_a_tenant(rig: Rig) -> Transcript:
    answer = await reload(rig, GATEWAY_OPEN=None, GATEWAY_TENANTS=tenants(requests="1/minute"))
    assert await statuses(rig, 2) == [200, 429]
    return answer


async def secret_of_digests(rig: Rig) -> Transcript:
    listed = json.dumps({"acme": {"keys": [hmac_digest(KEY.encode(), SECRET.encode())]}})
    answer = await reload(rig, GATEWAY_OPEN=None, GATEWAY_TENANTS=listed, GATEWAY_KEY_SECRET=SECRET)
    assert await statuses(rig, 1) == [200]
    return answer


async def attempts_of_a_call(rig: Rig) -> Transcript:
    rig.scripts["a"] = failing(500)
    answer = await reload(rig, GATEWAY_MAX_ATTEMPTS="1")
    await rig.call()
    assert dict(rig.calls) == {"a": 1}
    return answer


async def default_requests(rig: Rig) -> Transcript:
    answer = await reload(rig, GATEWAY_DEFAULT_REQUESTS="1/minute")
    assert await statuses(rig, 2) == [200, 429]
    return answer


async def default_tokens(rig: Rig) -> Transcript:
    answer = await reload(rig, GATEWAY_DEFAULT_TOKENS="40/minute")
    assert 429 in await statuses(rig, 12)
    return answer


async def default_concurrency(rig: Rig) -> Transcript:
    answer = await reload(rig, GATEWAY_DEFAULT_CONCURRENCY="7")
    limits = (await rig.get("/v1/usage"))["limits"]
    assert [(row["unit"], row["limit"]) for row in limits] == [("concurrency", 7)]
    return answer


async def bytes_of_an_event(rig: Rig) -> Transcript:
    stream = b"".join(chat_events("x" * 200))
    rig.scripts["a"] = streaming(stream[:250], stream[250:])
    assert await statuses(rig, 1, model="a/m", stream=True) == [200]
    answer = await reload(rig, GATEWAY_MAX_EVENT_BYTES="100")
    assert await statuses(rig, 1, model="a/m", stream=True) == [502]
    return answer


async def default_spend_and_prices(rig: Rig) -> Transcript:
    answer = await reload(rig, GATEWAY_DEFAULT_SPEND="1/day", GATEWAY_PRICES=PRICED, GATEWAY_ROUTES='{"fast": ["a/m"]}')
    assert await statuses(rig, 1) == [429]
    return answer


async def a_limit_of_a_group(rig: Rig) -> Transcript:
    answer = await reload(rig, GATEWAY_GROUPS='{"all": {"tenants": ["open"], "requests": "1/hour"}}')
    assert await statuses(rig, 2) == [200, 429]
    return answer


async def translation(rig: Rig) -> Transcript:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    rig.scripts["a"] = answering(json.dumps(body).encode())
    assert await statuses(rig, 1, path=MESSAGES) == [200]
    answer = await reload(rig, GATEWAY_TRANSLATION="off")
    assert await statuses(rig, 1, path=MESSAGES) == [400]
    return answer


async def facts_of_a_model(rig: Rig) -> Transcript:
    answer = await reload(rig, GATEWAY_MODELS='{"m": {"max_output_tokens": 4321}}')
    assert (await rig.get("/v1/models/fast"))["max_output_tokens"] == 4321
    await rig.call(model="x/m", max_tokens=None)
    assert json.loads(rig.exchange.requests[-1].body)["max_tokens"] == 4321
    return answer


async def tenants_by_header(rig: Rig) -> Transcript:
    answer = await reload(
        rig, GATEWAY_OPEN=None, GATEWAY_TENANT_HEADER="X-Tenant", GATEWAY_TRUSTED_PROXIES="127.0.0.1",
        GATEWAY_TENANT_HEADER_SECRET=SECRET,
    )  # fmt: skip
    named = {"x-tenant": "acme", "x-gateway-tenant-secret": SECRET}
    assert await statuses(rig, 1, headers=named) == [200]
    assert rig.lines("call")[-1]["tenant"] == "acme"
    assert await statuses(rig, 1, headers={"x-tenant": "acme"}) == [401]
    return answer


async def another_guard(rig: Rig) -> Transcript:
    down = '{"down": {"url": "http://127.0.0.1:9", "deadline": 0.5}}'
    answer = await reload(rig, GATEWAY_GUARDS=down)
    assert await statuses(rig, 1) == [503]
    return answer


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        (another_guard, {"guards"}),
        (translation, {"translation"}),
        (facts_of_a_model, {"models"}),
        (breaker_numbers, {"providers"}),
        (another_credential, {"providers"}),
        (another_route, {"routes"}),
        (limit_of_a_route, {"routes"}),
        (keys_are_asked_for, {"tenants", "is_open"}),
        (limit_of_a_tenant, {"tenants", "is_open"}),
        (secret_of_digests, {"tenants", "is_open", "key_secret"}),
        (tenants_by_header, {"is_open", "tenant_header", "trusted_proxies", "tenant_header_secret"}),
        (attempts_of_a_call, {"max_attempts"}),
        (default_requests, {"default_requests"}),
        (default_tokens, {"default_tokens"}),
        (default_concurrency, {"default_concurrency"}),
        (bytes_of_an_event, {"max_event_bytes"}),
        (a_limit_of_a_group, {"groups"}),
        (default_spend_and_prices, {"default_spend", "prices", "routes"}),
    ],
)
async def test_what_is_called_changed_acts_at_once(
    change: Callable[[Rig], Awaitable[Transcript]], fields: set[str]
) -> None:
    rig = Rig()
    answer = await change(rig)
    assert answer.status == 200
    assert set(answer.json()["changed"]) == fields
    assert answer.json()["need_restart"] == []


async def test_calls_before_a_reload_leave_nothing_behind_for_those_after_it() -> None:
    rig = Rig()
    assert await statuses(rig, 2) == [200, 200]
    assert (len(rig.gateway.plans.calls), dict(rig.calls)) == (1, {"a": 2})
    await reload(
        rig, GATEWAY_ROUTES='{"fast": ["c/m"]}', GATEWAY_OPEN=None, GATEWAY_TENANTS=tenants(requests="2/minute")
    )
    assert await statuses(rig, 3) == [200, 200, 429]
    assert dict(rig.calls) == {"a": 2, "c": 2}
    await reload(rig, GATEWAY_TENANTS=tenants(requests="2/minute", models=["other"]))
    assert await statuses(rig, 1) == [404]


async def test_a_revoked_key_takes_the_plans_with_it() -> None:
    rig = Rig(GATEWAY_OPEN="false", GATEWAY_TENANTS=tenants())
    assert await statuses(rig, 1) == [200]
    before = rig.gateway.plans.calls.generation
    rig.gateway.revocations.listing_changed(frozenset({digest(KEY.encode())}), frozenset())
    assert await statuses(rig, 1) == [401]
    assert (len(rig.gateway.plans.calls), rig.gateway.plans.calls.generation) == (0, before + 1)


def test_every_setting_acts_at_once_or_is_named() -> None:
    """The table above shows each that acts at once."""
    gateway = Rig().gateway
    assert frozenset[str]().union(*(part.takes for part in gateway.parts)) == AT_ONCE
    assert set(Settings.__struct_fields__) > AT_ONCE


async def test_what_waits_for_a_restart_is_named() -> None:
    rig = Rig()
    changes = {
        "GATEWAY_PORT": "9999", "GATEWAY_WORKERS": "2", "GATEWAY_DRAIN_SECONDS": "7", "GATEWAY_TRACING": "on",
        "GATEWAY_METRICS_TOKEN": "a-metrics-token", "GATEWAY_STORAGE_URI": "redis://127.0.0.1:1",
        "GATEWAY_BREAKER": "shadow", "GATEWAY_CONSOLE": "off",
        "GATEWAY_MAX_BODY_BYTES": "100000", "GATEWAY_QUEUE_SECONDS": "3",
    }  # fmt: skip
    answer = (await reload(rig, **changes)).json()
    expected = {name.removeprefix("GATEWAY_").lower() for name in changes}
    assert set(answer["need_restart"]) == set(answer["changed"]) == expected


class Refusing:
    """A part that takes nothing: the last to be asked."""

    takes = frozenset({"port"})

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        yield

    def prepare(self, new: Settings) -> Commit:
        raise SettingsError(["the last part does not like it"])


async def test_a_reload_that_fails_in_the_last_part_has_changed_nothing_in_the_first() -> None:
    rig = Rig()
    gateway, before = rig.gateway, rig.gateway.settings
    rig.environment |= {"GATEWAY_ROUTES": '{"fast": ["c/m"]}', "GATEWAY_DEFAULT_REQUESTS": "1/minute"}
    rig.environment["GATEWAY_TENANTS"] = json.dumps({"x": {"keys": [digest(b"gw-other")]}})
    new = Settings.from_env(rig.environment)
    with pytest.raises(SettingsError, match="the last part"):
        Reload(gateway.config, (*gateway.parts, Refusing()), reread=None).apply(new)
    assert gateway.settings is before
    assert await statuses(rig, 2) == [200, 200]
    assert dict(rig.calls) == {"a": 2}


async def test_a_host_gives_other_settings_from_its_own_code() -> None:
    rig = Rig()
    new = Settings.from_env(rig.environment | {"GATEWAY_ROUTES": '{"fast": ["c/m"]}', "GATEWAY_PORT": "9"})
    answer = rig.gateway.reload(new)
    assert (answer["changed"], answer["need_restart"]) == (["port", "routes"], ["port"])
    await rig.call()
    assert dict(rig.calls) == {"c": 1}


async def test_settings_that_cannot_be_read_change_nothing_and_say_why() -> None:
    rig = Rig()
    answer = await reload(rig, GATEWAY_ROUTES='{"fast": ["nobody/m"]}')
    assert answer.status == 400
    assert "nobody" in answer.json()["error"]["message"]
    assert (await rig.call()).status == 200


async def test_calls_keep_what_they_began_with() -> None:
    rig = Rig()

    def swap(request: Any) -> Any:
        rig.environment["GATEWAY_ROUTES"] = '{"fast": ["c/m"]}'
        rig.gateway.operations.reload_on_signal()
        return failing(500)(request)

    rig.scripts |= {"a": swap, "b": answering()}
    assert (await rig.call()).status == 200
    assert dict(rig.calls) == {"a": 1, "b": 1}


async def test_another_credential_ends_what_the_old_one_had_earned() -> None:
    rig = Rig()
    rig.scripts["a"] = failing(401, "invalid_api_key")
    assert await statuses(rig, 2, model="a/m") == [502, 503]
    rig.scripts["a"] = answering()
    await reload(rig, GATEWAY_DEFAULT_REQUESTS="100/minute")
    assert await statuses(rig, 1, model="a/m") == [503], "it is left alone still"
    await reload(rig, GATEWAY_PROVIDERS=providers(rig, api_key="sk-another-secret-of-a"))
    assert await statuses(rig, 1, model="a/m") == [200]
