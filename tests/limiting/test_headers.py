"""What clients are told."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from clock import Clock
from gateway_middleware.core.domain import Dialect
from gateway_middleware.core.retry_after import retry_after_headers
from gateway_middleware.limiting.headers import PreparedHeaders, go_duration, limit_headers
from gateway_middleware.limiting.limit import Limit, Unit
from gateway_middleware.limiting.notation import parse_limit
from gateway_middleware.limiting.reservation import LimitReachedError, Reservations
from gateway_middleware.limiting.store.memory import MemoryStore
from limit_cases import claim, fresh, rpm, slots, spend, tpm

WALL = 1_800_000_000.0
_ITEM = r'"[a-z0-9]+"(;[a-z]+=("[a-z-]+"|\d+))+'


def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock, wall=clock)


def test_openai() -> None:
    clock, tenant = Clock(60_000), fresh()
    memory = store(clock)
    claims = [claim(tenant, rpm(100)), claim(tenant, tpm(), 500), claim(tenant, slots(5)), claim(tenant, spend())]
    memory.admit(claims, b"a")
    clock.advance(1.5)
    found = dict(limit_headers(memory.admit(claims, b"b"), Dialect.OPENAI, WALL))

    assert found == {
        b"x-ratelimit-limit-requests": b"100",
        b"x-ratelimit-remaining-requests": b"98",
        b"x-ratelimit-reset-requests": b"1m0.5s",
        b"x-ratelimit-limit-tokens": b"10000",
        b"x-ratelimit-remaining-tokens": b"9000",
        b"x-ratelimit-reset-tokens": b"1m0.5s",
        b"ratelimit-policy": b'"rpm";q=100;w=60, "tpm";q=10000;w=60, "concurrency";q=5;qu="concurrent-requests"',
        b"ratelimit": b'"rpm";r=98;t=60, "tpm";r=9000;t=60, "concurrency";r=3',
    }


def test_anthropic() -> None:
    clock, tenant = Clock(60_000), fresh()
    decision = store(clock).admit([claim(tenant, rpm(100)), claim(tenant, tpm(), 500)], b"a")
    found = dict(limit_headers(decision, Dialect.ANTHROPIC, WALL))

    assert found[b"anthropic-ratelimit-requests-limit"] == b"100"
    assert found[b"anthropic-ratelimit-requests-remaining"] == b"99"
    assert found[b"anthropic-ratelimit-tokens-remaining"] == b"9500"
    assert found[b"anthropic-ratelimit-tokens-reset"] == b"2027-01-15T08:01:01Z"
    assert not any(name.startswith(b"x-ratelimit") for name in found)


def test_of_several_limits_the_tightest_is_told() -> None:
    clock, tenant = Clock(60_000), fresh()
    memory = store(clock)
    claims = [claim(tenant, parse_limit("10/second")), claim(tenant, parse_limit("20/hour"))]
    told = []
    for _ in range(21):
        told.append(dict(limit_headers(memory.admit(claims, b"a"), Dialect.AZURE, WALL)))
        clock.advance(0.3)

    assert told[0][b"x-ratelimit-limit-requests"] == b"10"
    assert told[19][b"x-ratelimit-limit-requests"] == b"20"
    assert told[20][b"x-ratelimit-remaining-requests"] == b"0"
    assert b'"rps";q=10;w=1, "rph";q=20;w=3600' in told[0][b"ratelimit-policy"]


def test_shadow_and_spend_are_told_to_nobody() -> None:
    tenant = fresh()
    decision = store(Clock()).admit([claim(tenant, rpm(is_shadow=True)), claim(tenant, spend())], b"a")

    assert limit_headers(decision, Dialect.OPENAI, WALL) == []


@given(
    limits=st.permutations(
        [rpm(5), replace(tpm(900), name="100%"), slots(3), spend(), rpm(9, seconds=30, is_shadow=True)]
    ),
    count=st.integers(1, 5),
    steps=st.lists(st.tuples(st.integers(0, 40_000_000), st.integers(1, 500)), min_size=1, max_size=12),
    dialect=st.sampled_from([Dialect.OPENAI, Dialect.ANTHROPIC]),
)
def test_headers_of_constant_limits_are_those_of_the_decision(
    limits: list[Limit], count: int, steps: list[tuple[int, int]], dialect: Dialect
) -> None:
    clock, tenant = Clock(60_000), fresh()
    memory, chosen = store(clock), limits[:count]
    prepared = PreparedHeaders.of(chosen, None if dialect is Dialect.OPENAI else lambda: WALL)
    for gap, cost in steps:
        clock.micro += gap
        claims = [claim(tenant, limit, cost if limit.unit is Unit.TOKENS else 1) for limit in chosen]
        decision = memory.admit(claims, b"%d" % clock.micro)
        told = limit_headers(decision, dialect, WALL)
        assert sorted(told) == sorted(
            prepared.headers([s.standing for s in decision.statuses]) if prepared is not None else []
        )


def test_prepared_headers_tell_the_oldest_bucket_apart_from_the_newest() -> None:
    clock, tenant = Clock(60_000), fresh()
    memory, prepared = store(clock), PreparedHeaders.of([rpm(5)])
    assert prepared is not None
    for _ in range(2):
        decision = memory.admit([claim(tenant, rpm(5))], b"a")
        clock.advance(7)
    standing = [status.standing for status in decision.statuses]
    assert sorted(prepared.headers(standing)) == sorted(limit_headers(decision, Dialect.OPENAI, WALL))
    assert decision.statuses[0].oldest != decision.statuses[0].newest
    refused = store(clock).admit([claim(fresh(), rpm(5), 6)], b"a")
    assert (
        dict(prepared.headers([status.standing for status in refused.statuses]))[b"x-ratelimit-reset-requests"] == b"0s"
    )


def test_of_two_limits_on_one_unit_the_tightest_has_to_be_found() -> None:
    assert PreparedHeaders.of([parse_limit("10/second"), parse_limit("20/hour")]) is None
    assert PreparedHeaders.of([spend()]) is None


@given(cost=st.integers(1, 100), gap=st.integers(0, 70_000_000), limit=st.integers(1, 100))
def test_consistent_and_obeying_succeeds_the_first_time(cost: int, gap: int, limit: int) -> None:
    """RL21: `Retry-After` is never before `t`, and whoever obeys it gets in."""
    clock, tenant = Clock(60_000), fresh()
    memory, asked = store(clock), claim(tenant, tpm(limit), min(cost, limit))
    for _ in range(200):
        decision = memory.admit([asked], b"a")
        if not decision.is_admitted:
            break
        clock.micro += gap // 50
    headers = dict(limit_headers(decision, Dialect.OPENAI, WALL))
    state = headers[b"ratelimit"].decode()
    assert re.fullmatch(_ITEM, state)
    assert re.fullmatch(_ITEM, headers[b"ratelimit-policy"].decode())
    if decision.is_admitted:
        return
    assert decision.retry_after is not None
    told = dict(retry_after_headers(decision.retry_after))
    assert int(told[b"retry-after"]) >= int(state.rpartition("t=")[2])
    clock.micro += int(told[b"retry-after-ms"]) * 1000
    assert memory.admit([asked], b"a").is_admitted


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, b"0s"), (0.0001, b"1ms"), (0.02, b"20ms"), (0.9995, b"1s"), (1, b"1s"), (1.5, b"1.5s"), (59.25, b"59.25s"),
     (60, b"1m0s"), (360, b"6m0s"), (3661.5, b"1h1m1.5s"), (90_000, b"25h0m0s")],
)  # fmt: skip
def test_go_durations(seconds: float, text: bytes) -> None:
    assert go_duration(seconds) == text


@pytest.mark.anyio
async def test_messages_name_the_limit_and_never_the_tenant() -> None:
    clock = Clock(60_000)
    reservations, tenant = Reservations(store(clock)), fresh("secret-tenant")
    asked = claim(tenant, rpm(1))
    await reservations.reserve([asked])
    with pytest.raises(LimitReachedError) as caught:
        await reservations.reserve([asked])
    with pytest.raises(LimitReachedError) as never:
        await reservations.reserve([claim(tenant, tpm(), 12_000)])
    with pytest.raises(LimitReachedError) as dear:
        await reservations.reserve([claim(tenant, spend(), 2_000_000)])

    assert caught.value.message == "Rate limit reached: 1 requests per minute (rpm). Try again in 61 s."
    assert (caught.value.http_status, caught.value.error_code) == (429, "rate_limit_exceeded")
    assert (caught.value.retry_after, caught.value.headers) == (61, [])
    assert "about 12,000 tokens, more than the whole limit of 10,000 tokens per minute (tpm)" in never.value.message
    assert (never.value.error_code, never.value.retry_after) == ("request_exceeds_limit", 60)
    assert never.value.headers == [(b"x-should-retry", b"false")]
    assert "about $2.00, more than the whole limit of $1.00 per month" in dear.value.message
