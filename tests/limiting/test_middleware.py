"""`CallLimitMiddleware`: what it reserves before a call, settles after it, and tells the client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from clock import Clock
from gateway_middleware.core.domain import Deployment, Dialect, ModelRequest, Outcome, Route, Surface, Tenant, Usage
from gateway_middleware.core.errors import ClientDisconnectedError, UpstreamError
from gateway_middleware.core.record import Attempt, CallRecord
from gateway_middleware.core.scope import RECORD, REQUEST, TENANT
from gateway_middleware.limiting.counters import DecisionCounters
from gateway_middleware.limiting.estimate import Estimator
from gateway_middleware.limiting.middleware import CallLimitMiddleware, CallLimits
from gateway_middleware.limiting.queue.waiting import WaitingRoom
from gateway_middleware.limiting.quota import Quota, Quotas
from gateway_middleware.limiting.reservation import LimitReachedError, Reservations
from gateway_middleware.limiting.store.memory import MemoryStore
from limit_cases import rpm, slots, spend, tpm

pytestmark = pytest.mark.anyio
ACME = Tenant(name="acme")


class Prices:
    """A micro-dollar for each token."""

    def estimate(self, deployment: Deployment, *, input_tokens: int, output_tokens: int) -> int | None:
        return input_tokens + output_tokens

    def cost(self, record: CallRecord, usage: Usage) -> int | None:
        return (usage.input_tokens or 0) + (usage.output_tokens or 0)


class House:
    """The layer over an application that answers as it is told."""

    def __init__(self, *limits: Any, wait: float | None = None) -> None:
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock, wall=self.clock.wall)
        self.reservations = Reservations(self.store)
        self.limits = CallLimits(
            quotas=Quotas({"acme": Quota(limits=limits)}),
            reservations=self.reservations,
            estimator=Estimator(default_output=500),
            counters=DecisionCounters(),
            pricing=Prices(),
            waiting_room=None if wait is None else WaitingRoom(self.reservations, max_wait=wait),
        )
        self.layer = CallLimitMiddleware(self._app, limits=self.limits, wall=self.clock.wall)
        self.usage: Usage | None = Usage(input_tokens=3, output_tokens=4)
        self.error: BaseException | None = None
        self.sent: list[Any] = []
        self.gate: asyncio.Event | None = None

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        record = RECORD.peek(scope)
        if record is not None:
            attempt = Attempt(deployment=Deployment(provider="p", model="m"), started=0.0, usage=self.usage)
            record.attempts, record.answered_by = [attempt], attempt
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})

    async def call(self, *, receive: Any = None, is_model_call: bool = True) -> dict[bytes, bytes]:
        scope: dict[str, Any] = {"type": "http"}
        if is_model_call:
            route = Route(name="r", deployments=())
            RECORD.set(scope, CallRecord(request_id="r", started=0.0, received_at=0.0))
            TENANT.set(scope, ACME)
            REQUEST.set(
                scope,
                ModelRequest(surface=Surface.CHAT, dialect=Dialect.OPENAI, model="m", route=route, body=b"", fields={}),
            )
        self.sent = []
        await self.layer(scope, receive or never, self._send)
        record = RECORD.peek(scope)
        return dict(self.sent[0]["headers"]) | dict([] if record is None else record.limit_headers)

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    async def used(self) -> dict[str, int]:
        decision = await self.reservations.decide(self.limits.quotas.all_claims(ACME), is_dry=True)
        return {s.claim.limit.name: s.claim.limit.amount - s.remaining for s in decision.statuses}


async def never() -> Any:
    await asyncio.get_running_loop().create_future()


async def leaves() -> Any:
    return {"type": "http.disconnect"}


async def test_what_was_really_used_is_settled_and_told() -> None:
    house = House(rpm(10), tpm(5000), spend(10_000), slots(2))
    headers = await house.call()

    assert await house.used() == {"rpm": 1, "tpm": 7, "spend": 7, "concurrency": 0}
    assert headers[b"a"] == b"b"
    assert headers[b"x-ratelimit-remaining-requests"] == b"9"
    assert house.limits.counters.counts()["acme", "rpm"].admitted == 1
    await house.reservations.aclose()


async def test_a_failure_gives_everything_back() -> None:
    house = House(rpm(10), tpm(5000), spend(10_000), slots(2))
    house.error = UpstreamError("down")
    with pytest.raises(UpstreamError):
        await house.call()

    assert await house.used() == {"rpm": 0, "tpm": 0, "spend": 0, "concurrency": 0}
    await house.reservations.aclose()


async def test_a_refusal_of_the_provider_counts_as_a_request() -> None:
    house = House(rpm(10), tpm(5000))
    house.error = UpstreamError("bad")
    house.error.outcome = Outcome.CLIENT_ERROR
    with pytest.raises(UpstreamError):
        await house.call()

    assert await house.used() == {"rpm": 1, "tpm": 0}
    await house.reservations.aclose()


async def test_what_nobody_knows_stays_reserved() -> None:
    house = House(tpm(5000))
    house.usage = None
    await house.call()

    assert (await house.used())["tpm"] > 500
    await house.reservations.aclose()


async def test_a_refused_call_raises_with_the_headers_and_is_not_made() -> None:
    house = House(rpm(1), slots(5))
    await house.call()
    with pytest.raises(LimitReachedError) as caught:
        await house.call()

    assert house.sent == []
    assert dict(caught.value.headers)[b"x-ratelimit-remaining-requests"] == b"0"
    assert house.limits.counters.counts()["acme", "rpm"].refused == 1
    await house.reservations.aclose()


async def test_what_is_no_model_call_or_has_no_limit_passes() -> None:
    assert await House(rpm(1)).call(is_model_call=False) == {b"a": b"b"}
    assert await House().call() == {b"a": b"b"}


async def test_a_cancelled_call_frees_its_slot() -> None:
    house = House(slots(1))
    house.gate = asyncio.Event()
    task = asyncio.create_task(house.call())
    while not (await house.used())["concurrency"]:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (await house.used())["concurrency"] == 0
    await house.reservations.aclose()


async def test_whoever_leaves_the_queue_is_not_called() -> None:
    house = House(slots(1), wait=5.0)
    house.gate = asyncio.Event()
    first = asyncio.create_task(house.call())
    while not (await house.used())["concurrency"]:
        await asyncio.sleep(0)
    with pytest.raises(ClientDisconnectedError):
        await house.call(receive=leaves)
    house.gate.set()
    await first

    assert (await house.used())["concurrency"] == 0
    await house.reservations.aclose()


async def test_what_a_call_gives_back_is_for_those_who_wait_not_for_who_comes_just_then() -> None:
    house, order = House(slots(1), wait=5.0), list[str]()
    gates = [asyncio.Event() for _ in range(3)]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        order.append(asyncio.current_task().get_name())  # type: ignore[union-attr]
        await gates[len(order) - 1].wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    house.layer.app = app
    calls = []
    for name in ("first", "waits"):
        calls.append(asyncio.create_task(house.call(), name=name))
        await _turns()
    assert order == ["first"]
    gates[0].set()
    calls.append(asyncio.create_task(house.call(), name="comes just then"))
    await _turns()
    assert order == ["first", "waits"], "nobody polls"
    gates[1].set()
    await _turns()
    assert order == ["first", "waits", "comes just then"]
    gates[2].set()
    await asyncio.gather(*calls)
    assert house.limits.waiting_room is not None
    assert not house.limits.waiting_room.is_busy
    assert (await house.used())["concurrency"] == 0
    await house.reservations.aclose()


async def _turns() -> None:
    """Let the event loop go on without time going on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_housekeeping_begins_with_the_first_call_and_ends_for_good() -> None:
    house = House(rpm(10))
    before = len(asyncio.all_tasks())
    await house.call()
    assert len(asyncio.all_tasks()) == before + 1
    await house.reservations.aclose()
    await house.reservations.aclose()
    await house.call()

    assert len(asyncio.all_tasks()) == before
