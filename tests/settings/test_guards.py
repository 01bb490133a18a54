"""Guards of `GATEWAY_GUARDS`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway_middleware.core.errors import SettingsError
from gateway_middleware.settings import GuardSettings, Settings


def guards(**entry: Any) -> tuple[GuardSettings, ...]:
    environ = {"GATEWAY_OPEN": "true", "OPENAI_API_KEY": "sk-0123456789", "GUARD": "hush-hush"}
    return Settings.from_env({**environ, "GATEWAY_GUARDS": json.dumps({"pii": entry})}).guards


def test_by_default_everything_is_shown_and_a_failure_refuses() -> None:
    (guard,) = guards(url="https://guard.internal/check")
    assert (guard.name, guard.stages, guard.deadline) == ("pii", ("request", "answer", "stream"), 1.0)
    assert not guard.fails_open
    assert not guard.is_shadow


def test_every_option() -> None:
    (guard,) = guards(
        url="https://guard.internal", token="env:GUARD", stages=["stream"], deadline=0.2, on_failure="pass",
        shadow=True, window=50, overlap=0,
    )  # fmt: skip
    assert guard.token is not None
    assert guard.token.reveal() == "hush-hush"
    assert (guard.stages, guard.deadline, guard.fails_open, guard.is_shadow) == (("stream",), 0.2, True, True)
    assert (guard.window, guard.overlap) == (50, 0)


@pytest.mark.parametrize(
    "entry",
    [
        {}, {"url": 5}, {"url": "ftp://x"}, {"url": "https://x", "stages": []}, {"url": "https://x", "stages": ["all"]},
        {"url": "https://x", "deadline": 0}, {"url": "https://x", "on_failure": "retry"},
        {"url": "https://x", "window": 0}, {"url": "https://x", "overlap": -1}, {"url": "https://x", "zzz": 1},
        {"url": "https://user:hush-hush@x"},
    ],
)  # fmt: skip
def test_faults_are_told(entry: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        guards(**entry)
    assert "GATEWAY_GUARDS.pii" in str(caught.value.complaints)
    assert "hush-hush" not in str(caught.value.complaints)


def test_names_are_plain() -> None:
    with pytest.raises(SettingsError):
        Settings.from_env({"GATEWAY_OPEN": "true", "GATEWAY_GUARDS": '{"a b": {"url": "https://x"}}'})
