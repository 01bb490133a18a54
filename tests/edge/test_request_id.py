"""Ids: unique ones of ours, harmless ones of clients."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.edge.request_id import accepted, new_request_ids


def test_ids_are_unique_within_and_between_processes() -> None:
    first, second = new_request_ids(), new_request_ids()
    assert len({next_id() for _ in range(500) for next_id in (first, second)}) == 1000


def test_our_ids_pass_our_own_check() -> None:
    assert new_request_ids(lambda n: b"\xab" * n)() == "abababababababab-1"
    assert accepted(new_request_ids()().encode()) is not None


@given(st.one_of(st.binary(max_size=80), st.from_regex(rb"[A-Za-z0-9._-]{0,70}", fullmatch=True)))
def test_accepted_is_the_documented_pattern(value: bytes) -> None:
    expected = re.fullmatch(rb"[A-Za-z0-9._-]{1,64}", value)
    assert accepted(value) == (value.decode() if expected else None)


@pytest.mark.parametrize("value", [b"a b", b"a\n", b"\x1b[31m", b"\xc3\xa9", b"", b"a" * 65, b'"', b"%0a"])
def test_harmful_ids_are_replaced(value: bytes) -> None:
    assert accepted(value) is None
