"""The numbers of a provider's circuit breakers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway_middleware.breaker.state.policy import BreakerPolicy
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.settings import Settings
from gateway_middleware.settings.tree import BreakerNumbers

P = "GATEWAY_PROVIDERS.p.breaker"
DEFAULT = BreakerPolicy()
NOT_BELOW = f"expected open_cap not below open_base (by default {DEFAULT.open_cap:g} and {DEFAULT.open_base:g})"


def read(breaker: Any) -> BreakerNumbers:
    listed = {"p": {"kind": "openai", "api_key": "sk-0123456789", "breaker": breaker}}
    environ = {"GATEWAY_OPEN": "true", "GATEWAY_PROVIDERS": json.dumps(listed)}
    return Settings.from_env(environ).providers[0].breaker


def test_only_what_is_named_differs_from_the_defaults() -> None:
    numbers = read({"consecutive": 3, "failure_ratio": "0.25", "open_base": 2})
    assert numbers.given == {"consecutive": 3, "failure_ratio": 0.25, "open_base": 2.0}
    assert read({}).given == {}


def test_every_number_is_one_of_the_policy() -> None:
    assert set(BreakerNumbers.__struct_fields__) <= set(BreakerPolicy.__struct_fields__)


@pytest.mark.parametrize(
    ("breaker", "line"),
    [
        ({"consecutive": 0}, f"{P}.consecutive=0: expected an integer from 1 to 1000"),
        ({"slow_ratio": 1.5}, f"{P}.slow_ratio=1.5: expected a number above 0, at most 1"),
        ({"failure_ratio": True}, f"{P}.failure_ratio=true: expected a number above 0, at most 1"),
        ({"window": 0}, f"{P}.window=0: expected seconds: a number above 0, at most 86400"),
        ({"windows": 1}, f"{P}.windows: unknown name; did you mean 'window'?"),
        (
            {"open_cap": 5},
            f"{P}={{...}}: {NOT_BELOW}",
        ),
        (
            {"open_base": DEFAULT.open_cap + 1},
            f"{P}={{...}}: {NOT_BELOW}",
        ),
        (7, f"{P}=7: expected an object"),
    ],
)
def test_numbers_that_make_no_breaker(breaker: Any, line: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(breaker)
    assert refused.value.complaints == (line,)
