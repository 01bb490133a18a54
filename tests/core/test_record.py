"""What a record says before anything has been learnt, and how cancelled calls are counted."""

from __future__ import annotations

import asyncio

import pytest

from gateway_middleware.core.domain import Deployment, Outcome, Usage
from gateway_middleware.core.outbox import Outbox
from gateway_middleware.core.outcomes import SHUTDOWN, outcome_of
from gateway_middleware.core.record import Attempt, CallRecord

DEPLOYMENT = Deployment(provider="openai", model="m")
FACTS = ("deployment", "usage", "delivered_tokens", "response_id", "response_model", "upstream_request_id")


def test_a_call_that_nobody_has_answered_has_learnt_nothing() -> None:
    record = CallRecord(request_id="r", started=0.0, received_at=0.0)
    assert [getattr(record, name) for name in FACTS] == [None] * len(FACTS)


def test_what_the_answering_attempt_has_learnt_is_the_calls() -> None:
    usage = Usage(input_tokens=1)
    attempt = Attempt(
        deployment=DEPLOYMENT, started=0.0, usage=usage, delivered_tokens=2, response_id="i", response_model="m",
        upstream_request_id="u",
    )  # fmt: skip
    record = CallRecord(request_id="r", started=0.0, received_at=0.0, attempts=[attempt], answered_by=attempt)
    assert [getattr(record, name) for name in FACTS] == [DEPLOYMENT, usage, 2, "i", "m", "u"]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (asyncio.CancelledError(SHUTDOWN), Outcome.SHUTDOWN),
        (asyncio.CancelledError("Task cancelled, timeout graceful shutdown exceeded"), Outcome.SHUTDOWN),
        (asyncio.CancelledError("a deadline of the host"), Outcome.CLIENT_DISCONNECT),
        (asyncio.CancelledError(), Outcome.CLIENT_DISCONNECT),
    ],
)
def test_a_call_is_shut_down_only_by_who_says_so(error: BaseException, outcome: Outcome) -> None:
    assert outcome_of(error) is outcome


def test_an_outbox_without_senders_is_quiet() -> None:
    assert Outbox().is_quiet
