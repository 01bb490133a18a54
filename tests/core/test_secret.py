"""Secrets and the texts they are struck out of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.secret import MIN_LENGTH, REDACTED, Secret, redact, redact_bytes

LONG = st.text(alphabet="abcXYZ0189-_", min_size=MIN_LENGTH, max_size=40)


def test_a_secret_shows_itself_only_when_asked() -> None:
    secret = Secret("sk-0123456789", source="env:KEY")
    assert (str(secret), repr(secret)) == (REDACTED, f"Secret({REDACTED}, source='env:KEY')")
    assert secret.reveal() == "sk-0123456789"
    assert len({secret, Secret("sk-0123456789"), Secret("another-secret")}) == 2
    assert secret.fingerprint == Secret("sk-0123456789").fingerprint != Secret("another-secret").fingerprint


@given(st.lists(LONG, min_size=1, max_size=4), st.lists(st.text(max_size=10), min_size=1, max_size=4))
def test_no_secret_stays_in_a_text(secrets: list[str], between: list[str]) -> None:
    text = "|".join(word + secret for word, secret in zip(between, secrets, strict=False))
    clean = redact(text, secrets)
    assert all(secret not in clean for secret in secrets)
    assert redact_bytes(text.encode(), secrets) == clean.encode()


def test_a_secret_that_begins_with_another_goes_whole() -> None:
    assert redact("sk-01234567-long", ["sk-01234567", "sk-01234567-long"]) == REDACTED


def test_a_text_is_not_shredded_by_a_key_that_is_none() -> None:
    line = 'Provider error {"provider": "openai", "key": "EMPTY"}'
    assert redact(line, ["e", "EMPTY", "openai", ""]) == line
