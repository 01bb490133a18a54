"""Whatever stands in the environment: either settings, or complaints of one line each without a secret."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.errors import SettingsError
from gateway_middleware.settings import VARIABLES, Settings, entra
from gateway_middleware.settings.providers import BUILT_IN

CANARY = "s3cr3t-canary"
SECRET_NAMES = [
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "AZURE_OPENAI_API_KEY",
    "GATEWAY_ADMIN_TOKEN",
    "GATEWAY_METRICS_TOKEN",
    "GATEWAY_KEY_SECRET",
    "GATEWAY_STORAGE_URI",
    "GATEWAY_USAGE_METERING_TOKEN",
]
NAMES = [v.name for v in VARIABLES if v.name != "GATEWAY_CONFIG_FILE"]

secrets = st.text(max_size=12).map(lambda tail: CANARY + tail)
WORDS = "kind openai azure_openai base_url api_key timeouts idle to openai/a p/m weight keys models requests 1/day p"
words = st.sampled_from([*WORDS.split(), "sha256:" + "0" * 64, "env:OPENAI_API_KEY", "https://h", "insecure"])
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | words
trees: st.SearchStrategy[Any] = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.text(max_size=3), inner, max_size=4)
)
texts = st.text(max_size=40) | words | trees.map(json.dumps) | st.sampled_from(["true", "8080", "{", "memory://"])


def complaints(environ: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environ)
    return caught.value.complaints


def outcome(environ: dict[str, str]) -> tuple[str, ...]:
    try:
        settings = Settings.from_env(environ)
    except SettingsError as error:
        return error.complaints
    assert settings.config_hash
    return (repr(settings), *settings.warnings())


@given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=12), texts, max_size=10))
def test_nothing_but_settings_error_is_raised(environ: dict[str, str]) -> None:
    for line in outcome(environ):
        assert line.isprintable()
        assert line.isascii()


@given(
    st.dictionaries(st.sampled_from(NAMES), texts, max_size=6),
    st.dictionaries(st.sampled_from(SECRET_NAMES), secrets, min_size=1),
    secrets,
    trees,
)
def test_no_secret_is_shown(environ: dict[str, str], hidden: dict[str, str], key: str, rest: Any) -> None:
    provider = {"kind": "openai", "api_key": key, "base_url": rest}
    tenant = {"keys": [key, rest], "requests": rest}
    listed = {
        "GATEWAY_PROVIDERS": json.dumps({"p": provider, "q": rest}),
        "GATEWAY_TENANTS": json.dumps({"t": tenant}),
        "GATEWAY_ROUTES": json.dumps({"r": [key, "p/m", rest]}),
    }
    for line in outcome(environ | listed | hidden):
        assert CANARY not in line


@given(st.sampled_from(SECRET_NAMES), secrets, st.sampled_from(NAMES))
def test_a_secret_that_was_pasted_elsewhere_is_struck_out(name: str, secret: str, elsewhere: str) -> None:
    for line in complaints({name: secret, elsewhere: secret, "GATEWAY_PORT": "x"}):
        assert CANARY not in line


@given(secrets | st.text(min_size=70).map(CANARY.__add__))
def test_a_secret_that_became_a_name_is_struck_out(secret: str) -> None:
    listed = {
        "OPENAI_API_KEY": secret,
        "GATEWAY_PROVIDERS": json.dumps({secret: {secret: 1}}),
        "GATEWAY_ROUTES": json.dumps({secret: ["x/y", f"{secret}/a", f"{secret}/a"]}),
        "GATEWAY_TENANTS": json.dumps({secret: {"keys": [secret], "models": secret}}),
    }
    lines = complaints(listed)
    assert len(lines) >= 4
    for line in lines:
        assert CANARY not in line
        assert line.isprintable()


def test_every_variable_of_the_table_is_read() -> None:
    of_vendors = {variable for built_in in BUILT_IN.values() for variable in built_in.variables.values()}
    of_vendors |= set(entra.VARIABLES.values())
    structured = {"GATEWAY_PROVIDERS", "GATEWAY_ROUTES", "GATEWAY_TENANTS", "GATEWAY_CONFIG_FILE"}
    assert {v.name for v in VARIABLES if v.read is None} == of_vendors | structured
    assert all(v.field is not None for v in VARIABLES if v.read is not None)


def test_every_field_of_the_table_is_a_setting() -> None:
    fields = set(Settings.__struct_fields__) - {"providers", "given", "files"}
    assert {v.field for v in VARIABLES if v.field} == fields
    assert len({v.name for v in VARIABLES}) == len(VARIABLES)
