"""Calls of one session, conversation, header or tenant come to the same deployment, whatever they ask."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway_middleware import Settings, SettingsError
from gateway_middleware.core.domain import Affinity, Balance
from gateway_middleware.tenancy.keys import digest
from rig import RESPONSES, Rig

pytestmark = pytest.mark.anyio
TARGETS = ["a/m", "b/m", "c/m"]


async def places(rig: Rig, count: int, **call: Any) -> list[str]:
    """The providers that so many calls came to; no two of them have the same prompt."""
    first = len(rig.exchange.requests)
    for _ in range(count):
        assert (await rig.call(**call)).status == 200
    return [request.target.origin.host.partition(".")[0] for request in rig.exchange.requests[first:]]


def rig(by: str, **extra: Any) -> Rig:
    return Rig({"fast": {"to": TARGETS, "affinity": {"by": by}}}, **extra)


@pytest.mark.parametrize(
    ("by", "call"),
    [
        ("session", lambda n: {"headers": {"x-claude-code-session-id": f"session-{n}"}}),
        ("session", lambda n: {"headers": {"x-gateway-session": f"session-{n}"}}),
        ("header:X-Chat-Id", lambda n: {"headers": {"x-chat-id": f"chat {n}"}}),
        ("conversation", lambda n: {"conversation": f"conv_{n}", "path": RESPONSES}),
        ("conversation", lambda n: {"conversation": {"id": f"conv_{n}"}, "path": RESPONSES}),
    ],
)
async def test_calls_of_one_stay_together_and_several_are_spread(by: str, call: Any) -> None:
    gateway = rig(by)
    firsts = []
    for number in range(12):
        found = await places(gateway, 4, **call(number))
        assert len(set(found)) == 1
        firsts.append(found[0])
    assert len(set(firsts)) > 1


async def test_a_conversation_is_the_same_in_both_spellings() -> None:
    gateway = rig("conversation")
    for number in range(8):
        plain = await places(gateway, 1, conversation=f"conv_{number}", path=RESPONSES)
        assert plain == await places(gateway, 1, conversation={"id": f"conv_{number}"}, path=RESPONSES)


@pytest.mark.parametrize("conversation", [None, 7, [], {}, {"id": 7}])
async def test_what_is_no_conversation_goes_by_its_prompt(conversation: Any) -> None:
    assert len(set(await places(rig("conversation"), 24, conversation=conversation, path=RESPONSES))) > 1


async def test_a_call_without_a_session_goes_by_its_prompt() -> None:
    assert len(set(await places(rig("session"), 24))) > 1


async def test_a_tenant_has_its_place_and_shares_no_key() -> None:
    keys = [f"gw-tests-of-tenant-{number:02}-0123456789abcdef" for number in range(12)]
    tenants = {f"t{number}": {"keys": [digest(key.encode())]} for number, key in enumerate(keys)}
    gateway = rig("tenant", GATEWAY_OPEN="false", GATEWAY_TENANTS=json.dumps(tenants))
    found = [await places(gateway, 3, headers={"x-gateway-key": key}) for key in keys]
    assert all(len(set(one)) == 1 for one in found)
    assert len({one[0] for one in found}) > 1


def read(**options: Any) -> Settings:
    routes = {"fast": {"to": ["openai/a", "openai/b"], **options}}
    return Settings.from_env({"OPENAI_API_KEY": "sk-x", "GATEWAY_OPEN": "true", "GATEWAY_ROUTES": json.dumps(routes)})


def test_an_affinity_is_the_balance() -> None:
    (route,) = read(affinity={"by": "header:X-Chat-Id"}).routes
    assert (route.route.balance, route.route.affinity) == (Balance.AFFINITY, Affinity(by="header", header="x-chat-id"))
    assert read(affinity={"by": "prompt"}).routes[0].route.affinity == Affinity()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"affinity": {"by": "mood"}}, "expected one of prompt, session"),
        ({"affinity": {"by": "header:"}}, "expected one of"),
        ({"affinity": {"by": "header:Authorization"}}, "no credential"),
        ({"affinity": {"by": 7}}, "expected one of"),
        ({"affinity": {}}, "missing"),
        ({"affinity": "session"}, "expected an object"),
        ({"affinity": {"by": "session"}, "balance": "weight"}, "expected affinity"),
    ],
)
def test_bad_affinities(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        read(**options)
