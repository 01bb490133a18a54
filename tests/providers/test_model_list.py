"""What a provider says that it has: read from any of three shapes, bounded, and never trusted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_middleware.core.model_names import is_model_name
from gateway_middleware.providers.model_list import MAX_MODELS, ListedModel, read_model_list


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"id": "gpt-5", "object": "model", "created": 7, "owned_by": "openai"}, ListedModel(id="gpt-5", created=7)),
        (
            {"id": "claude-x", "type": "model", "display_name": "Claude X", "created_at": "1970-01-01T00:01:00Z",
             "max_input_tokens": 200000, "max_tokens": 64000},
            ListedModel(id="claude-x", created=60, display_name="Claude X", context_window=200000,
                        max_output_tokens=64000),
        ),
        ({"id": "qwen", "max_model_len": 32768}, ListedModel(id="qwen", context_window=32768)),
        ({"id": "a/b", "context_length": 8192, "created": None}, ListedModel(id="a/b", context_window=8192)),
        ({"id": "d", "display_name": "line\nend"}, ListedModel(id="d")),
    ],
)  # fmt: skip
def test_an_entry(entry: dict[str, Any], expected: ListedModel) -> None:
    assert read_model_list(json.dumps({"data": [entry]}).encode()) == (expected,)


@pytest.mark.parametrize(
    "entry", [{"id": "../x"}, {"id": ""}, {"id": "a\nb"}, {"id": 3}, {}, [], "gpt", {"id": "a", "max_tokens": -1},
              {"id": "a", "created_at": "yesterday"}]
)  # fmt: skip
def test_an_entry_that_is_none_is_left_out(entry: Any) -> None:
    body = json.dumps({"data": [entry, {"id": "good"}]}).encode()
    assert read_model_list(body) == (ListedModel(id="good"),)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data": 3}', b"<html>", b'{"data":' + b"[" * 100_000])
def test_what_is_no_list(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_model_list(body)


def test_a_list_is_bounded_and_names_stand_once() -> None:
    names = [f"m{i}" for i in range(MAX_MODELS + 10)]
    assert len(read_model_list(json.dumps({"data": [{"id": name} for name in names]}).encode())) == MAX_MODELS
    assert len(read_model_list(b'{"data":[{"id":"a"},{"id":"a"}]}')) == 1


_NAMES = st.sampled_from(["id", "created", "created_at", "max_tokens", "display_name"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner),
    max_leaves=8,
)


@given(st.lists(_JSON, max_size=5))
@settings(deadline=None)
def test_whatever_comes_only_names_that_can_be_called_are_listed(entries: list[Any]) -> None:
    models = read_model_list(json.dumps({"data": entries}).encode())
    assert all(is_model_name(model.id) for model in models)
