from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.domain import Usage
from gateway_middleware.providers.usage import anthropic_usage, count, json_object, openai_usage, openai_usage_of


@pytest.mark.parametrize(
    ("value", "counted"),
    [
        (0, 0),
        (7, 7),
        (10**9, 10**9),
        (12.0, 12),
        (10**9 + 1, None),
        (-1, None),
        (1.5, None),
        (float("inf"), None),
        (float("nan"), None),
        ("7", None),
        (True, None),
        (False, None),
        (None, None),
        ([], None),
    ],
)
def test_only_a_plausible_number_counts(value: object, counted: int | None) -> None:
    assert count(value) == counted
    assert type(count(value)) is type(counted)


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 0}, Usage(input_tokens=9, output_tokens=0)),
        ({"prompt_tokens": 9, "total_tokens": 9}, Usage(input_tokens=9)),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "prompt_tokens_details": {"cached_tokens": 80, "cache_write_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 30},
            },
            Usage(
                input_tokens=100, output_tokens=50, cached_input_tokens=80, cache_write_tokens=4, reasoning_tokens=30
            ),
        ),
        (
            {
                "input_tokens": 5,
                "output_tokens": 6,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0},
            },
            Usage(input_tokens=5, output_tokens=6, cached_input_tokens=0, reasoning_tokens=0),
        ),
        (
            {"type": "tokens", "input_tokens": 14, "input_token_details": {"audio_tokens": 14}, "output_tokens": 45},
            Usage(input_tokens=14, output_tokens=45),
        ),
        ({"type": "duration", "seconds": 3}, None),
        ({"prompt_tokens": "9", "completion_tokens": 4}, Usage(output_tokens=4)),
        ({"prompt_tokens": 3, "prompt_tokens_details": "none"}, Usage(input_tokens=3)),
        ({}, None),
    ],
)
def test_openai_formats(reported: dict[str, Any], usage: Usage | None) -> None:
    assert openai_usage(reported) == usage


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        ({"input_tokens": 3, "output_tokens": 0}, Usage(input_tokens=3, output_tokens=0)),
        (
            {
                "input_tokens": 3,
                "cache_read_input_tokens": 20,
                "cache_creation_input_tokens": 100,
                "cache_creation": {"ephemeral_5m_input_tokens": 70, "ephemeral_1h_input_tokens": 30},
                "output_tokens": 9,
                "output_tokens_details": {"thinking_tokens": 4},
            },
            Usage(
                input_tokens=123,
                output_tokens=9,
                cached_input_tokens=20,
                cache_write_tokens=100,
                cache_write_1h_tokens=30,
                reasoning_tokens=4,
            ),
        ),
        ({"cache_read_input_tokens": 20, "output_tokens": 9}, Usage(output_tokens=9, cached_input_tokens=20)),
        (
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "iterations": [
                    {"type": "compaction", "input_tokens": 1000, "output_tokens": 70, "cache_read_input_tokens": 500},
                    {"type": "message", "input_tokens": 10, "output_tokens": 5},
                    "not a run",
                ],
            },
            Usage(input_tokens=1510, output_tokens=75, cached_input_tokens=500),
        ),
        ({"input_tokens": 10, "output_tokens": 5, "iterations": []}, Usage(input_tokens=10, output_tokens=5)),
        ({"input_tokens": 10, "output_tokens": 5, "iterations": [{}]}, Usage(input_tokens=10, output_tokens=5)),
        ({"service_tier": "standard"}, None),
    ],
)
def test_anthropic_format(reported: dict[str, Any], usage: Usage | None) -> None:
    assert anthropic_usage(reported) == usage


@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b"3", b'"x"', b'{"a":', b'{"a":1e999}', b"\xff", b"[" * 100_000])
def test_what_is_no_object_reports_nothing(raw: bytes) -> None:
    assert json_object(msgspec.Raw(raw)) == {}


COUNTS = st.none() | st.integers(-5, 2 * 10**9) | st.floats() | st.text(max_size=3) | st.booleans()
NAMES = st.sampled_from(
    [
        "prompt_tokens",
        "completion_tokens",
        "input_tokens",
        "output_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
    ]
)
DETAILS = st.sampled_from(["prompt_tokens_details", "output_tokens_details", "iterations"])
REPORTS = st.dictionaries(NAMES, COUNTS) | st.dictionaries(
    NAMES | DETAILS, COUNTS | st.dictionaries(st.text(max_size=3), COUNTS) | st.lists(st.dictionaries(NAMES, COUNTS))
)


@given(REPORTS)
def test_any_report_gives_counts_or_nothing(reported: dict[str, Any]) -> None:
    for usage in (openai_usage(reported), anthropic_usage(reported)):
        for name in Usage.__struct_fields__ if usage else ():
            found = getattr(usage, name)
            assert found is None or (type(found) is int and found >= 0)
        assert usage != Usage()


DETAIL_NAMES = st.sampled_from(["cached_tokens", "cache_write_tokens", "reasoning_tokens", "audio_tokens"])
NUMBERS = st.none() | st.booleans() | st.integers(-2, 10**9 + 2) | st.sampled_from([2.0, 1.5, 10**25, "7"])
CHAT_REPORTS = st.fixed_dictionaries(
    {"prompt_tokens": NUMBERS, "completion_tokens": NUMBERS},
    optional={
        name: st.none() | st.dictionaries(DETAIL_NAMES, NUMBERS) | NUMBERS
        for name in (
            "prompt_tokens_details",
            "completion_tokens_details",
            "input_tokens_details",
            "output_tokens_details",
            "input_tokens",
            "output_tokens",
            "total_tokens",
        )
    },
)


@given(CHAT_REPORTS | REPORTS)
def test_the_quick_way_to_read_a_report_reads_the_same(reported: dict[str, Any]) -> None:
    raw = msgspec.Raw(msgspec.json.encode(reported))
    assert openai_usage_of(raw) == openai_usage(json_object(raw))


@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b"7", b'"prompt_tokens"', b"{", b'{"prompt_tokens":1,}'])
def test_what_is_no_report_is_none(raw: bytes) -> None:
    assert openai_usage_of(msgspec.Raw(raw)) is None
