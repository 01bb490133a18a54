"""Every form in which a provider says how long to wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clock import EPOCH
from gateway_middleware.breaker.failure.retry_after import MAX_WAIT, requested_wait, retry_after

HEADERS = [
    ({"retry-after": "21"}, 21.0),
    ({"retry-after": "1.5"}, 1.5),
    ({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30.0),
    ({"retry-after": "Fri, 15 Jan 2027 07:00:00 GMT"}, None),
    ({"retry-after-ms": "250"}, 0.25),
    ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
    ({"retry-after-ms": "0", "retry-after": "1"}, 1.0),
    ({"x-ratelimit-reset-requests": "1s"}, 1.0),
    ({"x-ratelimit-reset-requests": "20ms"}, 0.02),
    ({"x-ratelimit-reset-tokens": "1m30s"}, 90.0),
    ({"x-ratelimit-reset-tokens": "6m0s"}, MAX_WAIT),
    ({"x-ratelimit-reset-tokens": "7"}, 7.0),
    ({"x-ratelimit-reset-after": "3.5"}, 3.5),
    ({"x-ratelimit-reset": "1800000012"}, 12.0),
    ({"x-ratelimit-reset": "1800000012500"}, 12.5),
    ({"anthropic-ratelimit-input-tokens-reset": "2027-01-15T08:00:40Z"}, 40.0),
    ({"anthropic-ratelimit-tokens-reset": "2027-01-15T09:00:41+01:00"}, 41.0),
    ({"anthropic-ratelimit-tokens-reset": "2027-01-15T08:00:42"}, 42.0),
    ({"anthropic-ratelimit-tokens-reset": "2027-01-15T07:00:00Z"}, None),
    # The bucket that is empty counts, not the one that is slow to fill.
    (
        {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "2s",
            "x-ratelimit-remaining-tokens": "90",
            "x-ratelimit-reset-tokens": "50s",
        },
        2.0,
    ),
    ({"x-ratelimit-reset-requests": "12ms", "x-ratelimit-reset-tokens": "50s"}, 50.0),
    ({"retry-after": "3", "x-ratelimit-reset-tokens": "50s"}, 3.0),
    # No hints.
    ({}, None),
    ({"retry-after": ""}, None),
    ({"retry-after": "soon"}, None),
    ({"retry-after": "-5"}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "inf"}, None),
    ({"retry-after": "1e3"}, None),
    ({"retry-after": "0"}, None),
    ({"retry-after": "86400"}, None),
    ({"retry-after": "9" * 400}, None),
    ({"x-ratelimit-reset-tokens": "0s"}, None),
    ({"x-ratelimit-reset-tokens": "X-RATELIMIT-RESET-TOKENS-XXX"}, None),
    ({"x-ratelimit-limit-tokens": "100", "x-ratelimit-remaining-tokens": "0"}, None),
]
MESSAGES = [
    ("Rate limit reached for gpt-5 on tokens per min. Please try again in 6.2s. Visit ...", 6.2),
    ("Please try again in 1m30.5s.", 90.5),
    ("Please try again in 20ms.", 0.02),
    ("Please try again in 500 milliseconds.", 0.5),
    ("The token rate limit is used up for your pricing tier. Retry after 45 seconds.", 45.0),
    ("Please retry after 1 second.", 1.0),
    ("Please retry in 2 minutes, 5 seconds", 125.0),
    ("Try again in 1h0m0s", MAX_WAIT),
    ("Please retry after 86400 seconds.", None),
    ("Send less, or wait and try again.", None),
    ("try again in a few seconds", None),
    ("try again in 5 sheep", None),
    ("", None),
]


@pytest.mark.parametrize(("headers", "wait"), HEADERS)
def test_headers(headers: dict[str, str], wait: float | None) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert requested_wait(pairs, "", wall=EPOCH) == (None if wait is None else pytest.approx(wait))


@pytest.mark.parametrize(("message", "wait"), MESSAGES)
def test_messages(message: str, wait: float | None) -> None:
    assert requested_wait([], message, wall=EPOCH) == (None if wait is None else pytest.approx(wait))


def test_message_is_more_exact_than_full_buckets() -> None:
    headers = [(b"x-ratelimit-reset-tokens", b"50s")]
    assert requested_wait(headers, "Please try again in 2s.", wall=EPOCH) == 2.0


def test_retry_after_alone() -> None:
    assert retry_after([(b"retry-after", b"4")], wall=EPOCH) == 4.0
    assert retry_after([(b"x-ratelimit-reset-tokens", b"4s")], wall=EPOCH) is None


names = st.sampled_from(
    [
        b"retry-after",
        b"retry-after-ms",
        b"x-ratelimit-reset",
        b"x-ratelimit-reset-tokens",
        b"anthropic-ratelimit-x-reset",
    ]
)


@given(st.lists(st.tuples(names, st.binary(max_size=30)), max_size=4), st.text(max_size=60))
def test_garbage_never_raises(headers: list[tuple[bytes, bytes]], message: str) -> None:
    wait = requested_wait(headers, f"try again in {message}", wall=EPOCH)
    assert wait is None or 0 < wait <= MAX_WAIT
