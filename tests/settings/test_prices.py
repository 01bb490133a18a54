"""`GATEWAY_PRICES`."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from gateway_middleware.core.errors import SettingsError
from gateway_middleware.settings import Settings

ENVIRON = {"OPENAI_API_KEY": "sk-0123456789", "GATEWAY_OPEN": "true"}


def test_a_price_means_the_digits_that_are_written() -> None:
    prices = {"openai/gpt-5": {"input": 1.1, "output": "10.05"}}
    ((key, price),) = Settings.from_env(ENVIRON | {"GATEWAY_PRICES": json.dumps(prices)}).prices
    assert (key, price.input, price.output) == ("openai/gpt-5", Decimal("1.1"), Decimal("10.05"))


@pytest.mark.parametrize(
    "prices",
    [{"gpt-5": {"input": 1, "output": 1}}, {"a/b": 1}, {"a/b": {"input": -1, "output": 1}}, {"a/b": {"in": 1}}],
)
def test_bad_prices(prices: object) -> None:
    with pytest.raises(SettingsError, match="GATEWAY_PRICES"):
        Settings.from_env(ENVIRON | {"GATEWAY_PRICES": json.dumps(prices)})
