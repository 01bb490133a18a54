"""Limits as text."""

from __future__ import annotations

import pytest
from limits import RateLimitItemPerHour, RateLimitItemPerMinute

from gateway_middleware.limiting.limit import Alignment, Unit, limit_key
from gateway_middleware.limiting.notation import concurrency, limits_of, parse_limit, parse_limits, parse_spend


@pytest.mark.parametrize(
    ("text", "amount", "seconds", "name", "phrase"),
    [
        ("600/minute", 600, 60, "rpm", "600 requests per minute"),
        ("100 per 5 minutes", 100, 300, "rp5m", "100 requests per 5 minutes"),
        ("1/second", 1, 1, "rps", "1 requests per second"),
        ("10 / 90 second", 10, 90, "rp90s", "10 requests per 90 seconds"),
        ("5000/hour", 5000, 3600, "rph", "5,000 requests per hour"),
        ("1/day", 1, 86_400, "rpd", "1 requests per day"),
        ("7/month", 7, 2_592_000, "rpmo", "7 requests per 30 days"),
    ],
)
def test_rates(text: str, amount: int, seconds: int, name: str, phrase: str) -> None:
    found = parse_limit(text)

    assert (found.amount, found.seconds, found.name, found.phrase) == (amount, seconds, name, phrase)
    assert found.alignment is Alignment.SLIDING


def test_several_and_the_smaller_of_two() -> None:
    found = parse_limits("10/second; 1000/hour; 900/hour", Unit.TOKENS, is_shadow=True)

    assert [(f.name, f.amount, f.is_shadow) for f in found] == [("tps", 10, True), ("tph", 900, True)]
    assert len({limit_key("acme", f) for f in found}) == 2


@pytest.mark.parametrize(
    ("text", "amount", "alignment", "length", "phrase"),
    [
        ("100/month", 100_000_000, Alignment.MONTHS, 1, "$100.00 per month"),
        ("2.50 per day", 2_500_000, Alignment.DAYS, 1, "$2.50 per day"),
        ("0.000001/2 days", 1, Alignment.DAYS, 2, "$0.00 per 2 days"),
        ("5/year", 5_000_000, Alignment.MONTHS, 12, "$5.00 per 12 months"),
        ("5/hour", 5_000_000, Alignment.SLIDING, 3600, "$5.00 per hour"),
    ],
)
def test_spend(text: str, amount: int, alignment: Alignment, length: int, phrase: str) -> None:
    found = parse_spend(text)

    assert (found.amount, found.alignment, found.length) == (amount, alignment, length)
    assert found.phrase == phrase
    assert found.unit is Unit.SPEND


@pytest.mark.parametrize("text", ["", "many/minute", "5/fortnight", "0/minute", "-1/minute", "1e9/minute"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError):
        parse_limits(text)


@pytest.mark.parametrize("text", ["", "x/month", "NaN/month", "Infinity/day", "1/eon", "0/day"])
def test_what_is_no_spend(text: str) -> None:
    with pytest.raises(ValueError):
        parse_spend(text)


def test_concurrency() -> None:
    found = concurrency(50)

    assert (found.unit, found.seconds, found.phrase) == (Unit.CONCURRENCY, 0, "50 concurrent requests")


@pytest.mark.parametrize(
    ("owner", "scope", "key"),
    [
        ("acme", (), "{acme}:requests/sliding/60"),
        ("acme", ("model/gpt-5",), "{acme}:model/gpt-5:requests/sliding/60"),
        ("a}{:%", ("x:y",), "{a%7D%7B%3A%25}:x%3Ay:requests/sliding/60"),
    ],
)
def test_keys(owner: str, scope: tuple[str, ...], key: str) -> None:
    assert limit_key(owner, parse_limit("5/minute"), *scope) == key


def test_of_two_limits_of_one_length_the_smaller_one_stays_in_either_order() -> None:
    assert [limit.amount for text in ("5/hour;9/hour", "9/hour;5/hour") for limit in parse_limits(text)] == [5, 5]


def test_items_of_the_library_are_limits_on_requests() -> None:
    items = [RateLimitItemPerMinute(5, 2), RateLimitItemPerHour(9)]

    assert [limit.phrase for limit in limits_of(items)] == ["5 requests per 2 minutes", "9 requests per hour"]
    assert limits_of(items[0]) == limits_of("5 per 2 minutes")
    assert limits_of("") == limits_of([]) == ()
    with pytest.raises(TypeError, match="limits"):
        limits_of([5])  # type: ignore[list-item]  # what a caller without a type checker may give
