"""Failover as a layer, with and without a hedge: an inner application stands for dispatch. Patience is milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import msgspec
import pytest

from breaker_cases import Calls, route, status_error
from clock import Clock
from gateway_middleware.breaker.hedge import Hedge
from gateway_middleware.breaker.middleware import FailoverMiddleware
from gateway_middleware.breaker.state.errors import CircuitOpenError
from gateway_middleware.breaker.state.overrides import Command
from gateway_middleware.core.asgi import Message, Receive, Scope, Send
from gateway_middleware.core.domain import Balance, Dialect, ModelRequest, Outcome, Route, Surface, Tenant
from gateway_middleware.core.errors import ClientDisconnectedError
from gateway_middleware.core.record import Attempt, CallRecord
from gateway_middleware.core.scope import DEPLOYMENT, ON_CONTENT, RECORD, REQUEST, TENANT

pytestmark = pytest.mark.anyio

A, B = "a/m", "b/m"
Act: TypeAlias = "Callable[[Send], Awaitable[None]]"


async def answers(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"well", "more_body": False})


async def silent(send: Send) -> None:
    await asyncio.Event().wait()


async def fails(send: Send) -> None:
    raise status_error(500)


async def breaks(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise status_error(500)


class Inner:
    """Does for each deployment what the test says; notes the attempt as dispatch does."""

    def __init__(self, acts: dict[str, Act], clock: Clock) -> None:
        self.acts = acts
        self.asked: list[str] = []
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record, deployment = RECORD.get(scope), DEPLOYMENT.get(scope)
        attempt = Attempt(deployment=deployment, started=self._clock())
        record.attempts.append(attempt)
        record.answered_by = attempt
        self.asked.append(deployment.key)
        act = self.acts[deployment.key]
        if act is answers:
            ON_CONTENT.get(scope)()
        try:
            await act(send)
        except asyncio.CancelledError:
            attempt.outcome = Outcome.CLIENT_DISCONNECT
            raise
        attempt.outcome = Outcome.SUCCESS


class Kit:
    """One layer, its client and the record of its last call."""

    def __init__(self, acts: dict[str, Act], **options: Any) -> None:
        self.calls = Calls(**options)
        self.calls.register(*acts)
        self.inner = Inner(acts, self.calls.clock)
        self.hedge = Hedge(clock=self.calls.clock)
        self.layer = FailoverMiddleware(
            self.inner, failover=self.calls.failover, hedge=self.hedge, sleep=self.calls.clock.sleep
        )
        self.sent: list[Message] = []
        self.has_left = asyncio.Event()
        self.tasks = asyncio.all_tasks()
        """Those of the test itself."""

    async def call(self, to: Route, **fields: bytes) -> CallRecord:
        self.sent.clear()
        self.record = CallRecord(request_id="r", started=self.calls.clock(), received_at=0.0)
        request = ModelRequest(
            surface=Surface.CHAT,
            dialect=Dialect.OPENAI,
            model="fast",
            route=to,
            body=b"{}",
            fields={name: msgspec.Raw(value) for name, value in fields.items()},
        )
        scope: Scope = {"type": "http"}
        RECORD.set(scope, self.record)
        REQUEST.set(scope, request)
        TENANT.set(scope, Tenant(name="acme"))
        await self.layer(scope, self.receive, self.send)
        return self.record

    async def receive(self) -> Message:
        await self.has_left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.record.first_byte is None:
            self.record.first_byte = self.calls.clock()
        self.sent.append(message)


def hedged(seconds: float = 0.005) -> Route:
    return route(A, B, hedge_after=seconds)


# Without a hedge.


async def test_a_call_moves_on_and_waits_before_it_repeats() -> None:
    kit = Kit({A: fails, B: fails})
    with pytest.raises(Exception, match="failed"):
        await kit.call(route(A, B))

    assert kit.inner.asked == [A, B, A]
    assert kit.calls.clock.sleeps == [0.25]
    assert [a.outcome for a in kit.record.attempts] == [Outcome.SERVER_ERROR] * 3


async def test_a_call_that_has_begun_to_answer_does_not_move() -> None:
    kit = Kit({A: breaks, B: answers})
    with pytest.raises(Exception, match="failed"):
        await kit.call(route(A, B))

    assert kit.inner.asked == [A]
    assert kit.calls.failures(A) == 1


async def test_a_client_that_leaves_during_the_pause_is_noticed() -> None:
    kit = Kit({A: fails})

    async def pause(seconds: float) -> None:
        kit.has_left.set()
        await asyncio.Event().wait()

    kit.layer = FailoverMiddleware(kit.inner, failover=kit.calls.failover, hedge=kit.hedge, sleep=pause)
    with pytest.raises(ClientDisconnectedError):
        await kit.call(route(A))

    assert kit.inner.asked == [A]
    assert kit.calls.failures(A) == 1
    assert kit.calls.budget.has_room


async def test_where_nobody_can_take_the_call_nobody_is_asked() -> None:
    kit = Kit({A: answers})
    kit.calls.registry.command("a", Command.FORCE_OPEN)
    with pytest.raises(CircuitOpenError):
        await kit.call(route(A))

    assert kit.inner.asked == []


async def test_the_same_prompt_goes_to_the_same_deployment() -> None:
    kit = Kit({A: answers, B: answers})
    to = route(A, B, balance=Balance.AFFINITY)
    for number in range(20):
        for _ in range(2):
            await kit.call(to, messages=b'[{"role": "user", "content": "%d"}]' % number)
        await kit.call(to, prompt_cache_key=b'"%d"' % number)

    pairs = list(zip(kit.inner.asked[::3], kit.inner.asked[1::3], strict=True))
    assert all(first == second for first, second in pairs)
    assert {first for first, _ in pairs} == {A, B}


async def test_what_is_no_model_call_passes() -> None:
    kit = Kit({})
    seen: list[str] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    kit.layer.app = inner
    for kind in ("lifespan", "websocket", "http"):
        await kit.layer({"type": kind}, kit.receive, kit.send)

    assert seen == ["lifespan", "websocket", "http"]


# With a hedge.


async def test_one_that_is_quick_is_not_hedged() -> None:
    kit = Kit({A: answers, B: answers})
    record = await kit.call(hedged(5.0))

    assert kit.inner.asked == [A]
    assert record.answered_by is record.attempts[0]
    assert kit.sent[-1]["body"] == b"well"


async def test_a_silent_one_is_overtaken_and_says_nothing_of_its_own() -> None:
    kit = Kit({A: silent, B: answers})
    record = await kit.call(hedged())

    assert [(a.deployment.key, a.outcome) for a in record.attempts] == [
        (A, Outcome.ABANDONED), (B, Outcome.SUCCESS)
    ]  # fmt: skip
    assert record.answered_by is record.attempts[1]
    assert (kit.calls.failures(A), kit.calls.failures(B)) == (0, 0)
    assert asyncio.all_tasks() == kit.tasks


async def test_two_that_fail_are_followed_by_the_rest_of_the_call() -> None:
    kit = Kit({A: silent, B: fails})

    async def fails_late(send: Send) -> None:
        await asyncio.sleep(0.03)  # longer than the patience of the hedge
        raise status_error(500)

    kit.inner.acts[A] = fails_late
    with pytest.raises(Exception, match="failed"):
        await kit.call(hedged())

    assert kit.inner.asked[:2] == [A, B]
    assert len(kit.inner.asked) == 3
    assert asyncio.all_tasks() == kit.tasks


async def test_one_that_fails_at_once_is_followed_by_a_plain_attempt() -> None:
    kit = Kit({A: fails, B: answers})
    record = await kit.call(hedged(5.0))

    assert kit.inner.asked == [A, B]
    assert record.answered_by is record.attempts[1]


async def test_the_last_failure_of_a_race_is_the_clients() -> None:
    kit = Kit({A: fails}, max_attempts=1)
    with pytest.raises(Exception, match="failed"):
        await kit.call(route(A, hedge_after=5.0))

    assert kit.record.attempts[0].outcome is Outcome.SERVER_ERROR


async def test_where_nobody_is_left_a_race_of_one_goes_on() -> None:
    kit = Kit({A: silent})

    async def late(send: Send) -> None:
        await asyncio.sleep(0.02)  # longer than the patience of the hedge
        await answers(send)

    kit.inner.acts[A] = late
    await kit.call(route(A, hedge_after=0.005))

    assert kit.inner.asked == [A]
    assert kit.sent[-1]["body"] == b"well"


async def test_a_call_that_is_cancelled_gives_everything_back() -> None:
    kit = Kit({A: silent, B: silent})
    task = asyncio.create_task(kit.call(hedged()))
    while len(kit.inner.asked) < 2:
        await asyncio.sleep(0.001)  # waits for the patience of the hedge
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert asyncio.all_tasks() == kit.tasks
    assert [a.outcome for a in kit.record.attempts] == [Outcome.CLIENT_DISCONNECT] * 2
    assert (kit.calls.failures(A), kit.calls.failures(B)) == (0, 0)


async def test_patience_is_learnt_from_the_answers_of_the_route() -> None:
    kit = Kit({A: answers, B: answers})
    learning = hedged(0.0)

    async def takes_a_moment(send: Send) -> None:
        kit.calls.clock.advance(0.002)
        await answers(send)

    kit.inner.acts[A] = takes_a_moment
    for _ in range(20):
        await kit.call(learning)
    kit.inner.acts[A] = silent
    await kit.call(learning)

    assert kit.inner.asked == [A] * 21 + [B]
