"""Whatever fields a call has, and whatever its provider makes of them: never over a limit, never unbilled."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgi_driver import drive
from gateway_middleware.core.provider_api import UpstreamRequest
from gateway_middleware.tenancy.keys import digest
from rig import ADMIN, CHAT, MESSAGES, RESPONSES, Rig
from running import KEY
from scripted import ScriptedAnswer

COMPLETIONS, EMBEDDINGS = "/v1/completions", "/v1/embeddings"
COUNT_TOKENS, MODERATIONS, SPEECH = "/v1/messages/count_tokens", "/v1/moderations", "/v1/audio/speech"
TOKENS, DOLLARS = 5000, "0.04/month"
PRICES = json.dumps({f"{name}/m": {"input": 2, "output": 10} for name in ("a", "x")})
JSON = [(b"content-type", b"application/json")]
OWN_CAPS = {
    CHAT: ["max_tokens", "max_completion_tokens"],
    RESPONSES: ["max_output_tokens"],
    MESSAGES: ["max_tokens"],
    COMPLETIONS: ["max_tokens"],
}
EVERY_CAP = ["max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "n_predict"]


class Provider:
    """Uses all that its own API lets a call use, reading nothing of what other APIs call their fields."""

    def __init__(self) -> None:
        self.tokens = self.micro_dollars = 0

    def __call__(self, request: UpstreamRequest) -> ScriptedAnswer:
        path = request.target.path.removeprefix("/v1/")
        body = json.loads(request.body)
        surface = f"/v1/{path}"
        prompts, read = _prompts(body.get("prompt" if surface == COMPLETIONS else "input", "x"))
        written = max((int(body[cap]) for cap in OWN_CAPS.get(surface, ()) if cap in body), default=0)
        if surface in {CHAT, COMPLETIONS}:
            written *= body.get("n", 1)
        if surface == COMPLETIONS:
            written = written // body.get("n", 1) * max(body.get("n", 1), body.get("best_of", 1)) * prompts
        if surface in {COUNT_TOKENS, MODERATIONS}:
            return ScriptedAnswer(200, JSON, [b'{"id":"m","results":[],"input_tokens":900}'])
        self.tokens += read + written
        self.micro_dollars += 2 * read + 10 * written
        return ScriptedAnswer(200, JSON, [_document(surface, read, written)])


def _prompts(value: Any) -> tuple[int, int]:
    """How many prompts, and how many tokens they have."""
    if isinstance(value, str):
        return 1, 1
    if value and isinstance(value[0], int):
        return 1, len(value)
    return len(value), sum(1 if isinstance(prompt, str) else len(prompt) for prompt in value)


def _document(surface: str, read: int, written: int) -> bytes:
    if surface in {MESSAGES, RESPONSES}:
        usage = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
    else:
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return json.dumps({"id": "c1", "object": "response", "status": "completed", "usage": usage}).encode()


COUNTS = st.integers(1, 6)
PROMPTS = st.one_of(
    st.just("hello"),
    st.lists(st.just("hello"), min_size=1, max_size=5),
    st.lists(st.integers(0, 50_000), min_size=1, max_size=300),
    st.lists(st.lists(st.integers(0, 50_000), min_size=1, max_size=40), min_size=1, max_size=5),
)
FOREIGN = st.dictionaries(st.sampled_from([*EVERY_CAP, "n", "best_of", "thinking"]), st.integers(1, 40), max_size=4)


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A surface and a body: caps of its own, and fields that mean something elsewhere."""
    surfaces = [CHAT, RESPONSES, MESSAGES, COMPLETIONS, EMBEDDINGS, COUNT_TOKENS, MODERATIONS]
    surface = draw(st.sampled_from(surfaces))
    body: dict[str, Any] = {"model": "claude" if surface in {MESSAGES, COUNT_TOKENS} else "fast", **draw(FOREIGN)}
    caps = OWN_CAPS.get(surface, [])
    body |= (
        {cap: draw(st.integers(0, 3000)) for cap in draw(st.sets(st.sampled_from(caps), min_size=1)) if caps}
        if caps
        else {}
    )
    if draw(st.booleans()):
        body["n"] = draw(COUNTS)
    if surface == COMPLETIONS:
        body |= {"best_of": draw(COUNTS), "prompt": draw(PROMPTS)}
    elif surface in {EMBEDDINGS, RESPONSES, MODERATIONS}:
        body["input"] = draw(PROMPTS) if surface == EMBEDDINGS else "hello"
    else:
        body["messages"] = [{"role": "user", "content": "hello"}]
    return surface, body


def limited() -> tuple[Rig, Provider]:
    tenants = {"acme": {"keys": [digest(KEY.encode())], "tokens": f"{TOKENS}/minute", "spend": DOLLARS}}
    extra: dict[str, Any] = {"GATEWAY_TENANTS": json.dumps(tenants), "GATEWAY_OPEN": "", "GATEWAY_PRICES": PRICES}
    rig, provider = Rig({"fast": "a/m", "claude": "x/m"}, **extra), Provider()
    rig.scripts = {"a": provider, "x": provider}
    return rig, provider


async def make(rig: Rig, path: str, body: dict[str, Any]) -> int:
    headers = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {KEY}".encode())]
    answer = await drive(rig.gateway, method="POST", path=path, headers=headers, body=json.dumps(body).encode())
    return answer.status


async def standing(rig: Rig) -> dict[str, float]:
    headers = {"authorization": f"Bearer {ADMIN}"}
    rows = (await drive(rig.gateway, path="/v1/admin/usage", query=b"tenant=acme", headers=headers)).json()["limits"]
    return {row["unit"]: row["used"] for row in rows}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(calls(), min_size=1, max_size=25), st.booleans())
def test_no_call_gets_more_than_its_limits_and_all_that_was_used_is_counted(
    made: list[tuple[str, dict[str, Any]]], are_together: bool
) -> None:
    async def scenario() -> None:
        rig, provider = limited()
        if are_together:
            statuses = list(await asyncio.gather(*(make(rig, *call) for call in made)))
        else:
            statuses = [await make(rig, *call) for call in made]
        assert set(statuses) <= {200, 429}
        assert provider.tokens <= TOKENS
        assert provider.micro_dollars <= 40_000
        used = await standing(rig)
        assert used["tokens"] == provider.tokens
        assert used["spend"] == pytest.approx(provider.micro_dollars / 1e6, abs=1e-9)

    asyncio.run(scenario())


async def speech(rig: Rig) -> tuple[int, str]:
    rig.scripts["a"] = lambda _: ScriptedAnswer(200, [(b"content-type", b"audio/mpeg")], [b"\0sound"])
    answer = await rig.call("voice", path=SPEECH)
    return answer.status, "" if answer.status == 200 else answer.json()["error"]["code"]


@pytest.mark.anyio
@pytest.mark.parametrize(("on_unpriced", "outcome"), [("refuse", (400, "unpriced_model")), ("allow", (200, ""))])
async def test_a_call_without_a_price_passes_no_budget_unless_that_is_allowed(
    on_unpriced: str, outcome: tuple[int, str]
) -> None:
    tenants = {"acme": {"keys": [digest(KEY.encode())], "spend": "1/month", "on_unpriced": on_unpriced}}
    extra: dict[str, Any] = {"GATEWAY_TENANTS": json.dumps(tenants), "GATEWAY_OPEN": "", "GATEWAY_PRICES": PRICES}
    rig = Rig({"fast": "a/m", "new": "a/brand-new", "both": ["b/unheard", "a/m"], "voice": "a/tts"}, **extra)
    answer = await rig.call("new")
    assert (answer.status, "" if answer.status == 200 else answer.json()["error"]["code"]) == outcome
    assert await speech(rig) == outcome
    assert (await rig.call("new", path=MODERATIONS)).status == 200, "what is free needs no price"
    assert (await rig.call("both")).status == 200
    assert ("b" in rig.calls) is (on_unpriced == "allow"), "a deployment without a price is left out"
