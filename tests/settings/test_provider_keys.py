"""`api_key` as a list: several keys of one provider, with weights and names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway_middleware.core.errors import SettingsError
from gateway_middleware.settings import ProviderSettings, Settings

ONE, TWO, THREE = "sk-one-0123456789", "sk-two-0123456789", "sk-three-0123456789"


def provider(keys: Any, **variables: str) -> ProviderSettings:
    entry = {"p": {"kind": "openai", "api_key": keys}}
    environment = {"GATEWAY_OPEN": "true", "GATEWAY_PROVIDERS": json.dumps(entry), **variables}
    return Settings.from_env(environment).providers[0]


def test_several_keys_have_names_weights_and_sources(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(THREE)
    listed = [ONE, {"key": "env:TWO", "weight": 3}, {"key": f"file:{tmp_path}/key", "name": "batch", "weight": 0}]
    found = provider(listed, TWO=TWO)
    assert [(key.name, key.secret.reveal(), key.weight) for key in found.keys] == [
        ("key-1", ONE, 1), ("key-2", TWO, 3), ("batch", THREE, 0),
    ]  # fmt: skip
    assert found.api_key.reveal() == ONE
    assert [text for text in (ONE, TWO, THREE) if text in repr(found)] == []


@pytest.mark.parametrize("keys", [ONE, [ONE], [{"key": ONE, "name": "only"}]])
def test_one_key_is_no_choice(keys: Any) -> None:
    found = provider(keys)
    assert (found.api_key.reveal(), found.keys) == (ONE, ())


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ([], "expected a secret, or a list of secrets that is not empty"),
        (7, "expected text, env:NAME or file:/path"),
        ([ONE, 7], "api_key[1]"),
        ([ONE, "env:MISSING"], "MISSING"),
        ([ONE, ONE], "key-2 is the same key as another one"),
        ([ONE, {"weight": 1}], "api_key[1].key: missing"),
        ([ONE, {"key": TWO, "wieght": 1}], "unknown name"),
        ([ONE, {"key": TWO, "weight": -1}], "api_key[1].weight"),
        ([ONE, {"key": TWO, "name": "a key"}], "expected a name of letters"),
        ([{"key": ONE, "name": "key-2"}, TWO], "the name key-2 stands twice"),
        ([f"sk-{number:03d}-0123456789" for number in range(65)], "expected at most 64 keys"),
    ],
)
def test_what_is_no_list_of_keys(keys: Any, words: str) -> None:
    with pytest.raises(SettingsError) as raised:
        provider(keys)
    assert words in str(raised.value)
    assert [text for text in (ONE, TWO) if text in str(raised.value)] == []
