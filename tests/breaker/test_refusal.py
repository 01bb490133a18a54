"""What a client is told when nobody may be asked."""

from __future__ import annotations

import pytest

from gateway_middleware.breaker.failure.classes import FailureClass
from gateway_middleware.breaker.refusal import Obstacle, refusal
from gateway_middleware.breaker.state.pairs import Refusal
from gateway_middleware.breaker.state.transitions import State

AUTH = Obstacle(60.0, cooldown=FailureClass.PROVIDER_AUTH)
QUOTA = Obstacle(300.0, cooldown=FailureClass.QUOTA_EXHAUSTED)
WAIT = Obstacle(2.0, cooldown=FailureClass.RATE_LIMITED)
UNKNOWN = Obstacle(5.0)
OPEN = Obstacle(8.0, breaker=Refusal("a/m", State.OPEN, 8.0))
FORCED = Obstacle(900.0, breaker=Refusal("a/m", State.FORCED_OPEN, 900.0))


@pytest.mark.parametrize(
    ("obstacles", "code", "words", "wait"),
    [
        ([AUTH], "provider_auth", ["refuses the gateway's own credential (provider_auth)"], 60.0),
        ([AUTH, AUTH], "provider_auth", ["(provider_auth)"], 60.0),
        ([QUOTA], "quota_exhausted", ["quota at the provider is used up"], 300.0),
        ([AUTH, QUOTA], "provider_cooling_down", ["(provider_auth)", "(quota_exhausted)"], 60.0),
        ([WAIT, AUTH], "provider_cooling_down", ["asked the gateway to wait (rate_limited)", "(provider_auth)"], 2.0),
        ([WAIT], "provider_cooling_down", ["asked the gateway to wait (rate_limited)"], 2.0),
        ([UNKNOWN], "provider_cooling_down", ["asked the gateway to wait."], 5.0),
        ([OPEN], "circuit_open", ["circuit breaker is open"], 8.0),
        ([FORCED], "circuit_open", ["an operator has shut it off"], 900.0),
        ([AUTH, OPEN], "circuit_open", ["(provider_auth)", "circuit breaker is open"], 8.0),
        ([], "circuit_open", ["no deployment left"], 1.0),
    ],
)
def test_the_cause_is_told(obstacles: list[Obstacle], code: str, words: list[str], wait: float) -> None:
    error = refusal("fast", obstacles)
    assert (error.http_status, error.error_code, error.retry_after) == (503, code, wait)
    for text in ["`fast`", *words]:
        assert text in error.message
