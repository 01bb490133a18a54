"""The layer that asks: who passes, on which terms, and what the layers inside see of them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from gateway_middleware.core.endpoints import ENDPOINTS, Access
from gateway_middleware.policy.middleware import PolicyMiddleware
from rig import CHAT, Rig

pytestmark = pytest.mark.anyio
URL = "http://policy-adapter.test/v1/data/gateway/authorize"


class World:
    """A gateway whose policy-adapter answers `result` (or whatever `status` is)."""

    def __init__(self, *, result: Any = True) -> None:
        self.result, self.status = result, 200
        self.asked: list[dict[str, Any]] = []
        self.rig = Rig(transport=httpx.MockTransport(self._answer), GATEWAY_POLICY_ADAPTER_URL=URL)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        assert str(request.url) == URL
        self.asked.append(json.loads(request.content)["input"])
        return httpx.Response(self.status, json={"result": self.result, "decision_id": f"d{len(self.asked)}"})


async def test_a_call_is_asked_about_once_it_has_been_read() -> None:
    world = World()
    for _ in range(3):
        assert (await world.rig.call()).status == 200
    assert world.asked == [
        {"tenant": "open", "key_id": None, "action": "call", "endpoint": "chat", "surface": "chat", "model": "fast",
         "route": "fast"}
    ]  # fmt: skip


async def test_what_is_open_or_the_operators_is_not_asked_about() -> None:
    world = World(result=False)
    assert (await world.rig.get("/v1/health"))["policy"] == {"status": "ok"}
    assert (await world.rig.post("/v1/admin/reload")).status == 200
    assert world.asked == []
    assert {e.label for e in ENDPOINTS if e.access is Access.TENANT and e.surface is None} >= {"models", "usage"}


@pytest.mark.parametrize(
    ("path", "inner"),
    [(CHAT, ("error", "code")), ("/v1/messages", ("error", "type")), ("/openai/v1/responses", ("error", "code"))],
)
async def test_a_no_is_told_in_the_clients_dialect_and_no_provider_is_asked(path: str, inner: tuple[str, str]) -> None:
    world = World(result={"allow": False, "reason": "not on Sundays"})
    answer = await world.rig.call(path=path)
    assert answer.status == 403
    assert answer.json()[inner[0]][inner[1]] in {"policy_denied", "permission_error"}
    assert "not on Sundays" in answer.json()["error"]["message"]
    assert not world.rig.calls


async def test_a_suspended_tenant_and_a_no_without_a_reason() -> None:
    world = World(result={"allow": True, "limits": {"requests": 0}})
    assert (await world.rig.call()).json()["error"]["message"] == "This tenant is suspended."
    world = World(result=False)
    assert (await world.rig.call()).json()["error"]["message"] == "This call is not allowed by policy."


async def test_terms_are_followed_and_replaced() -> None:
    world = World(result={"allow": True, "limits": {"requests": "2/hour"}, "labels": {"plan": "free"}})
    assert [(await world.rig.call()).status for _ in range(3)] == [200, 200, 429]
    line = world.rig.lines("call")[0]
    assert (line["labels"], line["policy_decision"]) == ({"plan": "free"}, "d1")
    world.result = {"allow": True, "models": ["slow"]}
    await world.rig.post("/v1/admin/policy/invalidate")
    assert (await world.rig.call()).status == 404
    world.result = {"allow": True, "models": ["f*"]}
    await world.rig.post("/v1/admin/policy/invalidate/open")
    assert (await world.rig.call()).status == 200


@pytest.mark.parametrize(
    ("of_cheap", "status"),
    [(True, 200), (False, 429), ({"allow": True, "models": ["fast"]}, 429), ({"allow": True, "models": ["*"]}, 200)],
)
async def test_a_budget_steps_down_only_to_what_the_policy_allows(of_cheap: Any, status: int) -> None:
    def decide(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)["input"]
        return httpx.Response(200, json={"result": of_cheap if asked["model"] == "cheap" else True})

    rig = Rig(
        {"fast": {"to": ["a/m"], "on_budget": {"route": "cheap"}}, "cheap": ["b/m"]},
        transport=httpx.MockTransport(decide),
        GATEWAY_POLICY_ADAPTER_URL=URL,
        GATEWAY_PRICES=json.dumps({"a/m": {"input": 100000, "output": 100000}, "b/m": {"input": 1, "output": 1}}),
        GATEWAY_DEFAULT_SPEND="1/day",
    )
    assert (await rig.call()).status == status
    assert rig.calls == ({"b": 1} if status == 200 else {})


async def test_what_is_looked_up_is_asked_about_and_narrowed() -> None:
    world = World(result={"allow": True, "models": ["a/m"]})
    assert [model["id"] for model in (await world.rig.get("/v1/models"))["data"]] == ["a/m"]
    assert world.asked == [
        {"tenant": "open", "key_id": None, "action": "read", "endpoint": "models", "surface": None, "model": None,
         "route": None}
    ]  # fmt: skip


async def test_many_generations_fill_no_memory() -> None:
    world = World()
    for i in range(40):
        world.result = {"allow": True, "labels": {"generation": str(i)}}
        await world.rig.post("/v1/admin/policy/invalidate")
        assert (await world.rig.call()).status == 200
    assert world.rig.lines("call")[-1]["labels"] == {"generation": "39"}


async def test_a_reload_gives_it_other_times_and_rules() -> None:
    world = World()
    world.status = 500
    assert (await world.rig.call()).status == 503
    world.rig.environment |= {"GATEWAY_POLICY_ON_OUTAGE": "allow", "GATEWAY_POLICY_ALLOWED_SECONDS": "5"}
    answer = (await world.rig.post("/v1/admin/reload")).json()
    assert (set(answer["changed"]), answer["need_restart"]) == ({"policy_on_outage", "policy_allowed_seconds"}, [])
    assert (await world.rig.call()).status == 200
    world.rig.environment["GATEWAY_POLICY_ADAPTER_URL"] = "http://elsewhere.test"
    assert (await world.rig.post("/v1/admin/reload")).json()["need_restart"] == ["policy_adapter_url"]


async def test_what_is_no_http_call_passes() -> None:
    passed: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["type"])

    layer = PolicyMiddleware(app, decide=lambda _: pytest.fail("asked"))
    for kind in ("lifespan", "websocket", "http"):
        await layer({"type": kind}, None, None)  # type: ignore[arg-type]  # nobody receives or sends
    assert passed == ["lifespan", "websocket", "http"]
