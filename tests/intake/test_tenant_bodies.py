"""Bytes of request bodies under way, by tenant: bounded, and given back whatever happens."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_driver import drive, http_scope
from gateway_middleware import Gateway, Settings
from gateway_middleware.core.errors import RateLimitedError
from gateway_middleware.intake.tenant_bodies import Share, TenantBodies
from gateway_middleware.tenancy.keys import digest
from rawserver import plain, raw_server, respond
from rig import CHAT, GOOD, JSON
from running import KEY, environment, gateway_for
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


class Turns:
    """Some large bodies of one tenant, and which of them may be read."""

    def __init__(self, *, max_wait: float = 60.0) -> None:
        self.bodies = TenantBodies(1000, max_unfinished=100, max_wait=max_wait)
        self.shares: list[Share] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def ask(self, *sizes: int) -> None:
        for size in sizes:
            self.shares.append(self.bodies.share_of("acme"))
            self.tasks.append(asyncio.create_task(self.shares[-1].take_turn(size)))
        await self.settle()

    async def settle(self) -> list[int]:
        for _ in range(5):
            await asyncio.sleep(0)
        return [number for number, task in enumerate(self.tasks) if task.done()]


@pytest.mark.anyio
async def test_large_bodies_are_read_in_turn() -> None:
    turns = Turns()
    await turns.ask(60, 40, 30, 500, 10)
    assert await turns.settle() == [0, 1], "as many as fit, first come, first served"
    turns.shares[1].end_turn()
    turns.shares[1].close()
    assert await turns.settle() == [0, 1, 2]
    turns.shares[0].close()
    assert await turns.settle() == [0, 1, 2], "one that is larger than all is read alone, and is not overtaken"
    turns.shares[2].close()
    assert await turns.settle() == [0, 1, 2, 3]
    turns.shares[3].close()
    assert await turns.settle() == [0, 1, 2, 3, 4]
    turns.shares[4].close()
    await turns.ask(100)
    assert turns.tasks[-1].done(), "all is given back"
    turns.shares[-1].close()


@pytest.mark.anyio
async def test_who_gives_up_waiting_stands_in_nobodys_way() -> None:
    turns = Turns()
    await turns.ask(60, 90, 40, 70)
    assert await turns.settle() == [0]
    turns.tasks[1].cancel()
    assert await turns.settle() == [0, 1, 2]
    turns.tasks[3].cancel()
    for share in turns.shares:
        share.close()
    await turns.ask(100)
    assert turns.tasks[-1].done()


@pytest.mark.anyio
async def test_a_turn_that_comes_as_its_call_is_cancelled_is_given_on() -> None:
    turns = Turns()
    await turns.ask(60, 90, 50)
    turns.shares[0].close()
    turns.tasks[1].cancel()
    assert await turns.settle() == [0, 1, 2]
    assert turns.tasks[1].cancelled()


@pytest.mark.anyio
async def test_who_waits_too_long_or_has_no_room_is_told_when_to_come_back() -> None:
    turns = Turns(max_wait=0.01)
    await turns.ask(60, 90)
    with pytest.raises(RateLimitedError) as late:
        await turns.tasks[1]
    assert (late.value.error_code, late.value.retry_after) == ("too_many_bytes_under_way", 1.0)
    for share in turns.shares:
        share.close()
    whole = turns.bodies.share_of("acme")
    whole.add(950)
    with pytest.raises(RateLimitedError):
        await turns.bodies.share_of("acme").take_turn(80)
    await turns.bodies.share_of("bravo").take_turn(80)


@pytest.mark.anyio
async def test_who_waits_behind_a_body_that_has_stopped_goes_on_after_it() -> None:
    ask = json.dumps({"model": "openai/m", "messages": [{"role": "user", "content": "x" * 5_000_000}]}).encode()
    answer = plain(GOOD, extra=b"content-type: application/json\r\n")
    async with raw_server(respond(answer)) as server, gateway_for(server.url, GATEWAY_BODY_SECONDS="1") as url:
        host, _, port = url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: 13000000\r\n\r\n".encode() + b"x" * 100_000)
        await writer.drain()
        async with httpx.AsyncClient(timeout=20) as client:
            signed = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
            after = await asyncio.gather(*[client.post(url + CHAT, content=ask, headers=signed) for _ in range(3)])
        assert (await reader.readline()).split()[1] == b"408"
        writer.close()
    assert [answer.status_code for answer in after] == [200] * 3
