"""What one tenant's calls show of a provider, and what they cannot take from the others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_driver import Transcript
from gateway_middleware.core.provider_api import UpstreamRequest
from gateway_middleware.tenancy.keys import digest
from rig import JSON, MESSAGES, SSE, Rig, chat_events
from scripted import ScriptedAnswer

pytestmark = pytest.mark.anyio
TENANTS = ("odd", "second", "third")
GOOD = b"""{"id":"c","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},
"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"""


def rig_of_three() -> Rig:
    keys = {name: {"keys": [digest(f"gw-key-of-{name}".encode())]} for name in TENANTS}
    return Rig({"fast": ["a/m"]}, GATEWAY_OPEN="false", GATEWAY_TENANTS=json.dumps(keys))


class Server:
    """A provider that refuses requests with one of these fields; `echoes`: or whatever the text says, with all of it.

    It remembers the fields of each request.
    """

    def __init__(self, *refused: str, echoes: str | None = None) -> None:
        self.refused = refused
        self.echoes = None if echoes is None else echoes.encode()
        self.seen: list[set[str]] = []

    def __call__(self, request: UpstreamRequest) -> ScriptedAnswer:
        body = json.loads(request.body)
        self.seen.append(set(body))
        if self.echoes is not None and self.echoes in request.body:
            return ScriptedAnswer(400, JSON, [b'{"error":"invalid","input":%b}' % request.body])
        for field in self.refused:
            if field in body:
                return ScriptedAnswer(400, JSON, [b'{"error":"unsupported: \'%b\'"}' % field.encode()])
        if body.get("stream"):
            return ScriptedAnswer(200, SSE, chat_events("Hello"))
        return ScriptedAnswer(200, JSON, [GOOD])

    def have(self, field: str) -> list[bool]:
        """Whether each request since the last time had it."""
        found, self.seen = [field in fields for fields in self.seen], []
        return found


async def ask(rig: Rig, tenant: str, *, status: int = 200, **more: Any) -> Transcript:
    headers = {"authorization": f"Bearer gw-key-of-{tenant}"}
    answer = await rig.call(sends_key=False, headers=headers, **more)
    assert answer.status == status
    return answer


async def translated(rig: Rig, tenant: str, *, status: int = 200, text: str = "hi") -> Transcript:
    """A Messages client's call, which says who its end user is."""
    turns = [{"role": "user", "content": text}]
    return await ask(rig, tenant, status=status, path=MESSAGES, metadata={"user_id": "u"}, messages=turns)


async def test_a_field_that_two_tenants_calls_go_without_is_sent_for_nobody() -> None:
    rig, server = rig_of_three(), Server("user", "safety_identifier")
    rig.scripts["a"] = server
    for tenant, tries in (("odd", [True, False]), ("odd", [False]), ("second", [True, False]), ("third", [False])):
        await translated(rig, tenant)
        assert server.have("user") == tries


async def test_an_echo_teaches_nothing_to_anybody() -> None:
    rig, server = rig_of_three(), Server(echoes="an unknown word")
    rig.scripts["a"] = server
    for _ in range(2):
        await translated(rig, "odd", status=400, text="an unknown word, 'user'")
        assert server.have("user") == [True, False]
    for tenant in TENANTS:
        await translated(rig, tenant)
        assert server.have("user") == [True]


async def test_an_odd_value_of_one_tenant_takes_nothing_from_the_others() -> None:
    rig, server = rig_of_three(), Server("user")
    rig.scripts["a"] = server
    for _ in range(3):  # the server takes the field: what it refuses is what this tenant says
        await translated(rig, "odd")
    server.refused = ()
    server.have("user")
    for tenant, has_user in (("second", True), ("third", True), ("odd", False)):
        await translated(rig, tenant)
        assert server.have("user") == [has_user]


async def test_what_was_wrong_is_forgotten() -> None:
    rig, server = rig_of_three(), Server("user")
    rig.scripts["a"] = server
    await translated(rig, "odd")
    server.refused, server.echoes = (), b"an unknown word"
    await translated(rig, "odd", status=400, text="an unknown word, 'user'")
    server.have("user")
    await translated(rig, "odd")
    assert server.have("user") == [True]


async def test_a_stream_goes_without_usage_for_nobody_but_whose_calls_have_shown_it() -> None:
    rig, server = rig_of_three(), Server("stream_options", echoes="a word that it minds")
    rig.scripts["a"] = server
    turns = [{"role": "user", "content": "a word that it minds"}]
    await ask(rig, "odd", status=400, stream=True, messages=turns)
    assert server.have("stream_options") == [True, False]
    for tenant, tries in (("odd", [True, False]), ("second", [True, False]), ("third", [False])):
        await ask(rig, tenant, stream=True)
        assert server.have("stream_options") == tries


async def test_two_refusals_one_after_the_other_are_both_heeded() -> None:
    rig, server = rig_of_three(), Server("stream_options", "user")
    rig.scripts["a"] = server
    for tries in (3, 1):
        await ask(rig, "odd", path=MESSAGES, stream=True, metadata={"user_id": "u"})
        assert len(server.seen) == tries
        assert server.seen[-1].isdisjoint({"stream_options", "user"})
        server.seen = []
