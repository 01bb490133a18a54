"""The gateway's layer, with an application that plays dispatch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from asgi_driver import drive
from call_list import CallList, attempt_at
from gateway_middleware.core.asgi import Receive, Scope, Send
from gateway_middleware.core.domain import (
    Deployment,
    Dialect,
    ModelRequest,
    Outcome,
    Route,
    Surface,
    Tenant,
    Usage,
)
from gateway_middleware.core.errors import UnavailableError
from gateway_middleware.core.outbox import Outbox
from gateway_middleware.core.record import CallRecord, Meter
from gateway_middleware.core.scope import METER, OUTBOX, RECORD, REQUEST, TENANT
from gateway_middleware.metering.middleware import MeteringMiddleware
from gateway_middleware.metering.usage_event import UsageEvent

pytestmark = pytest.mark.anyio
ROUTE = Route(name="fast", deployments=(Deployment(provider="openai", model="m"),))
ASKED = ModelRequest(
    surface=Surface.CHAT, dialect=Dialect.OPENAI, model="fast", route=ROUTE, body=b"x" * 40, fields={}, is_stream=True
)
Dispatch = Callable[[Meter], Awaitable[None]]


async def call(dispatch: Dispatch, *, request: ModelRequest = ASKED, **options: Any) -> CallList:
    journal = options.pop("journal", None) or CallList()
    facts = options.pop("scope", {})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await dispatch(METER.get(scope))

    metering = MeteringMiddleware(
        app,
        **{
            "journal": journal,
            "appraise": lambda event, _: event,
            "estimate_input": lambda request, tenant: 99,
            "wall": lambda: 7.0,
            **options,
        },
    )

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        RECORD.set(scope, CallRecord(request_id="r", started=0.0, received_at=0.0))
        TENANT.set(scope, Tenant(name="acme", key_id="k"))
        REQUEST.set(scope, request)
        await metering({**scope, **facts}, receive, send)

    await drive(outer, method="POST")
    return journal


async def test_each_attempt_is_opened_before_and_closed_after() -> None:
    seen: list[UsageEvent] = []
    journal = CallList()

    async def dispatch(meter: Meter) -> None:
        first, second = attempt_at(outcome=Outcome.SERVER_ERROR), attempt_at("azure", usage=Usage(input_tokens=1))
        meter.begin(first)
        meter.begin(second)
        second.outcome, second.is_complete = Outcome.SUCCESS, True
        assert len(journal.opened) == 2
        assert journal.closed == []

    await call(dispatch, journal=journal, on_event=seen.append)
    one, other = journal.opened
    assert (one.id[:-1], one.attempt, other.attempt) == (other.id[:-1], 1, 2)
    assert (one.tenant, one.key_id, one.request_id, one.route, one.model) == ("acme", "k", "r", "fast", "fast")
    assert (one.deployment, other.deployment, one.time, one.input_tokens) == ("openai/m", "azure/m", 7.0, 10)
    assert (journal.voided, [event.id for event in journal.closed]) == ([one.id], [other.id])
    assert seen == journal.closed


async def test_the_input_is_estimated_only_where_the_provider_does_not_tell() -> None:
    estimated: list[str] = []

    def estimate(request: ModelRequest, tenant: str) -> int:
        estimated.append(tenant)
        return 99

    async def dispatch(meter: Meter) -> None:
        for usage in (Usage(input_tokens=3), Usage(output_tokens=3), None):
            meter.begin(attempt_at(outcome=Outcome.CLIENT_DISCONNECT, usage=usage))

    events = (await call(dispatch, estimate_input=estimate)).closed
    assert [event.usage.input_tokens for event in events] == [3, 99, 99]
    assert estimated == ["acme", "acme"]


async def test_the_price_of_a_tier() -> None:
    def appraise(event: UsageEvent, tier: str | None) -> UsageEvent:
        return msgspec.structs.replace(event, cost=tier)

    async def dispatch(meter: Meter) -> None:
        meter.begin(attempt_at(outcome=Outcome.SUCCESS, service_tier="flex"))

    (event,) = (await call(dispatch, appraise=appraise)).closed
    assert event.cost == "flex"


@pytest.mark.parametrize("error", [RuntimeError("x"), asyncio.CancelledError()])
async def test_whatever_ends_the_call_closes_it(error: BaseException) -> None:
    journal = CallList()

    async def dispatch(meter: Meter) -> None:
        meter.begin(attempt_at())
        raise error

    with pytest.raises(type(error)):
        await call(dispatch, journal=journal)
    (event,) = journal.closed
    assert (event.outcome, event.usage_source) == ("client_disconnect", "estimated")


async def test_an_answer_that_is_read_on_is_closed_when_that_ends() -> None:
    journal = CallList()
    drained: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    attempt = attempt_at(outcome=Outcome.CLIENT_DISCONNECT, drained=drained)

    async def dispatch(meter: Meter) -> None:
        meter.begin(attempt)

    await call(dispatch, journal=journal)
    assert journal.closed == []
    attempt.usage, attempt.is_complete = Usage(input_tokens=1, output_tokens=40), True
    drained.set_result(None)
    await asyncio.sleep(0)
    assert [(event.usage.output_tokens, event.usage_source) for event in journal.closed] == [(40, "provider")]


async def test_what_cannot_be_written_down_is_not_begun() -> None:
    journal = CallList()
    journal.is_full = True

    async def dispatch(meter: Meter) -> None:
        with pytest.raises(UnavailableError):
            meter.begin(attempt_at())

    await call(dispatch, journal=journal)
    assert (journal.closed, journal.voided) == ([], [])


@pytest.mark.parametrize(("is_shared", "commits"), [(True, 0), (False, 1)])
async def test_the_journal_is_written_before_the_end_unless_the_server_sees_to_it(
    is_shared: bool, commits: int
) -> None:
    outbox = Outbox()

    async def dispatch(meter: Meter) -> None:
        meter.begin(attempt_at(outcome=Outcome.SUCCESS))

    scope = {OUTBOX.slot: outbox if is_shared else Outbox()}
    journal = await call(dispatch, outbox=outbox, scope=scope)
    assert (len(journal.closed), journal.commits) == (1, commits)


async def test_an_attempt_whose_entry_could_not_be_written_is_no_event() -> None:
    async def dispatch(meter: Meter) -> None:
        entry = meter.begin(attempt_at(outcome=Outcome.SUCCESS))
        assert entry is not None
        entry.fault = UnavailableError("full")
        meter.begin(attempt_at(outcome=Outcome.SUCCESS))

    journal = await call(dispatch, heeds_entries=True)
    assert [event.attempt for event in journal.closed] == [2]


async def test_a_request_without_a_model_passes_unmetered() -> None:
    asked: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(METER.peek(scope) is None)

    layer = MeteringMiddleware(app, journal=CallList(), appraise=lambda e, _: e, estimate_input=lambda *_: 0)
    await layer({"type": "http"}, None, None)  # type: ignore[arg-type]
    await layer({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert asked == [True, True]


async def test_a_route_that_nobody_configured_is_not_named() -> None:
    async def dispatch(meter: Meter) -> None:
        meter.begin(attempt_at())

    free = msgspec.structs.replace(ASKED, route=msgspec.structs.replace(ROUTE, is_configured=False))
    (opened,) = (await call(dispatch, request=free)).opened
    assert opened.route is None
