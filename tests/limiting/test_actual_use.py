"""With what a reservation is settled, whatever the end of its call."""

from __future__ import annotations

import asyncio

import pytest

from gateway_middleware.core.domain import Deployment, Outcome, Usage
from gateway_middleware.core.errors import ClientDisconnectedError, GatewayError, UpstreamError
from gateway_middleware.core.record import Attempt, CallRecord
from gateway_middleware.limiting.actual_use import UseKind, actual_use
from gateway_middleware.limiting.estimate import Estimate

ESTIMATE = Estimate(100, 1000, False, 0)
WHOLE = Usage(input_tokens=7, output_tokens=9)


def failure(outcome: Outcome) -> UpstreamError:
    error = UpstreamError("no")
    error.outcome = outcome
    return error


def record(*, usage: Usage | None = None, delivered: int | None = None, began: bool = False) -> CallRecord:
    attempt = Attempt(
        deployment=Deployment(provider="p", model="m"), started=0.0, usage=usage, delivered_tokens=delivered
    )
    call = CallRecord(request_id="r", started=0.0, received_at=0.0, attempts=[attempt], answered_by=attempt)
    call.first_byte = 1.0 if began else None
    return call


@pytest.mark.parametrize(
    ("call", "error", "kind", "tokens"),
    [
        (record(usage=WHOLE), None, UseKind.USED, (7, 9)),
        (record(usage=Usage(output_tokens=9)), None, UseKind.USED, (100, 9)),
        (record(delivered=40), None, UseKind.USED, (100, 40)),
        (record(usage=Usage(input_tokens=7, output_tokens=2), delivered=40), None, UseKind.USED, (7, 40)),
        (record(), None, UseKind.UNKNOWN, None),
        (record(began=True), failure(Outcome.SERVER_ERROR), UseKind.USED, (100, 0)),
        (record(usage=WHOLE), failure(Outcome.SERVER_ERROR), UseKind.USED, (7, 9)),
        (record(), failure(Outcome.SERVER_ERROR), UseKind.REFUND, None),
        (record(), failure(Outcome.THROTTLED), UseKind.REFUND, None),
        (record(), failure(Outcome.CLIENT_ERROR), UseKind.NOTHING, (0, 0)),
        (record(), GatewayError("no breaker lets it through"), UseKind.REFUND, None),
        (record(), ClientDisconnectedError(), UseKind.USED, (100, 0)),
        (record(), asyncio.CancelledError(), UseKind.USED, (100, 0)),
    ],
)
def test_every_end(
    call: CallRecord, error: BaseException | None, kind: UseKind, tokens: tuple[int, int] | None
) -> None:
    use = actual_use(call, ESTIMATE, error)

    assert use.kind is kind
    assert (None if use.usage is None else (use.usage.input_tokens, use.usage.output_tokens)) == tokens


def test_whoever_leaves_before_a_provider_was_asked_gets_everything_back() -> None:
    call = CallRecord(request_id="r", started=0.0, received_at=0.0)

    assert actual_use(call, ESTIMATE, ClientDisconnectedError()).kind is UseKind.REFUND


def test_without_an_estimate_unknown_input_is_nothing() -> None:
    usage = actual_use(record(delivered=3), None, None).usage

    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (0, 3)
