"""Bytes of request bodies under way, by tenant: bounded, and given back whatever happens."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_driver import drive, http_scope
from gateway_middleware import Gateway, Settings
from gateway_middleware.core.errors import RateLimitedError
from gateway_middleware.intake.tenant_bodies import TenantBodies
from gateway_middleware.tenancy.keys import digest
from rig import CHAT, GOOD, JSON
from running import environment
from scripted import ScriptedAnswer, ScriptedExchange


@given(st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 60), max_size=4)), max_size=8))
def test_what_is_under_way_is_what_was_taken_and_not_given_back(calls: list[tuple[str, list[int]]]) -> None:
    bodies = TenantBodies(100)
    expected = {"a": 0, "b": 0}
    shares = []
    for tenant, pieces in calls:
        share = bodies.share_of(tenant)
        shares.append(share)
        for size in pieces:
            if expected[tenant] + size > 100:
                with pytest.raises(RateLimitedError):
                    share.add(size)
            else:
                share.add(size)
                expected[tenant] += size
            assert {t: bodies.under_way(t) for t in "ab"} == expected
    for share in shares:
        share.close()
        share.close()
    assert {t: bodies.under_way(t) for t in "ab"} == {"a": 0, "b": 0}


KEYS = {"acme": "gw-acme-0123456789abcdef0123456789", "bravo": "gw-bravo-0123456789abcdef0123456789"}


def gateway() -> Gateway:
    listed = ", ".join(f'"{name}": {{"keys": ["{digest(key.encode())}"]}}' for name, key in KEYS.items())
    variables = environment(
        "http://127.0.0.1:1", GATEWAY_TENANTS=f"{{{listed}}}", GATEWAY_MAX_TENANT_BODIES_BYTES="4096"
    )
    exchange = ScriptedExchange(lambda _: ScriptedAnswer(200, JSON, [GOOD]))
    return Gateway(Settings.from_env(variables), exchange=exchange)


class Slow:
    """A client that has sent a part of its body and then waits."""

    def __init__(self, part: bytes) -> None:
        self.part: bytes | None = part
        self.has_sent = asyncio.Event()
        self.leaves = asyncio.Event()

    async def receive(self) -> Any:
        if self.part is not None:
            part, self.part = self.part, None
            return {"type": "http.request", "body": part, "more_body": True}
        self.has_sent.set()
        await self.leaves.wait()
        return {"type": "http.disconnect"}


def headers(tenant: str) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", b"application/json"), (b"authorization", f"Bearer {KEYS[tenant]}".encode())]


def body(size: int) -> bytes:
    return b'{"model":"gpt-5","messages":[{"role":"user","content":"%b"}]}' % (b"x" * size)


@pytest.mark.anyio
async def test_one_tenants_unfinished_bodies_are_its_own_trouble() -> None:
    app = gateway()
    slow = Slow(body(3000)[:3000])

    async def send(message: Any) -> None:
        raise AssertionError(message)

    scope = http_scope("POST", CHAT, headers=headers("acme"))
    held = asyncio.ensure_future(app(scope, slow.receive, send))
    await slow.has_sent.wait()

    own = await drive(app, method="POST", path=CHAT, headers=headers("acme"), body=body(2000))
    assert (own.status, own.json()["error"]["code"]) == (429, "too_many_bytes_under_way")
    assert own.headers["retry-after"] == "1"
    assert (await drive(app, method="POST", path=CHAT, headers=headers("acme"), body=body(500))).status == 200
    assert (await drive(app, method="POST", path=CHAT, headers=headers("bravo"), body=body(2000))).status == 200

    slow.leaves.set()
    await held
    for _ in range(3):
        assert (await drive(app, method="POST", path=CHAT, headers=headers("acme"), body=body(3900))).status == 200
    assert (await drive(app, method="POST", path=CHAT, headers=headers("acme"), body=body(4096))).status == 413
