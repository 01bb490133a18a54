"""What is said of prices before the first call."""

from __future__ import annotations

import json

from gateway_middleware import Settings
from gateway_middleware.commands.check import describe
from gateway_middleware.composition.pricing import price_warnings
from gateway_middleware.tenancy.keys import digest

DIGEST = digest(b"a-key-of-a-tenant-0123456789")
PRICES = {"openai/priced": {"input": 1}}


def settings(**limits: str) -> Settings:
    return Settings.from_env(
        {
            "OPENAI_API_KEY": "sk-not-a-real-key",
            "GATEWAY_ROUTES": json.dumps({"fast": ["openai/priced", "openai/unheard-of"], "new": "openai/unheard-of"}),
            "GATEWAY_TENANTS": json.dumps({"acme": {"keys": [DIGEST], **limits}}),
            "GATEWAY_PRICES": json.dumps(PRICES),
        }
    )


def test_a_deployment_without_a_price_is_named_once_where_a_limit_on_spend_would_refuse_it() -> None:
    (line,) = price_warnings(settings(spend="1/month"))
    assert "openai/unheard-of" in line
    assert price_warnings(settings(requests="9/minute")) == []


def test_check_names_who_may_call_what_has_no_price() -> None:
    lines = list(describe(settings(spend="1/month", on_unpriced="allow"), {}))
    assert any("acme" in line and "on_unpriced allow" in line for line in lines)
    warnings = [line for line in lines if line.startswith("warning: ")]
    assert any("tenant acme: on_unpriced is allow" in line for line in warnings)
    assert any("no price is known for openai/unheard-of" in line for line in warnings)
    assert not any("on_unpriced" in line for line in describe(settings(requests="9/minute"), {}))
