"""`Retry-After`, read and written."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clock import EPOCH
from gateway_middleware.core.retry_after import parse_retry_after, retry_after_headers


@pytest.mark.parametrize(
    ("seconds", "whole", "milliseconds"),
    [(0.0, 1, 1), (0.2, 1, 200), (1.0, 1, 1000), (1.0004, 2, 1001), (61, 61, 61_000)],
)
def test_both_headers_are_written(seconds: float, whole: int, milliseconds: int) -> None:
    headers = retry_after_headers(seconds)

    assert headers == [(b"retry-after", b"%d" % whole), (b"retry-after-ms", b"%d" % milliseconds)]


@given(st.floats(0, 1e6))
def test_nobody_is_asked_to_come_too_early_and_nobody_at_once(seconds: float) -> None:
    whole, milliseconds = (int(value) for _, value in retry_after_headers(seconds))

    assert whole >= 1
    assert milliseconds >= 1
    assert whole + 1e-6 >= seconds
    assert whole <= math.floor(seconds) + 1
    assert milliseconds / 1000 + 1e-6 >= seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("21", 21.0),
        ("1.5", 1.5),
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30.0),
        ("Fri, 15 Jan 2027 08:00:30 -0000", 30.0),
        ("Fri, 15 Jan 2027 07:59:00 GMT", -60.0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-3", None),
        ("1e3", None),
        ("1" * 400, None),
        ("\u0661", None),
        ("Fri, 99 Jan 2027 08:00:30 GMT", None),
    ],
)
def test_values_are_numbers_or_dates(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, wall=EPOCH) == seconds


@given(st.text())
def test_any_text_is_read_without_complaint(text: str) -> None:
    seconds = parse_retry_after(text, wall=EPOCH)

    assert seconds is None or math.isfinite(seconds)
