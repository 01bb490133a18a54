"""Labels of providers, and what tenants require."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest

from gateway_middleware.core.errors import SettingsError
from gateway_middleware.settings import Settings

DIGEST = "sha256:" + "a" * 64


def settings(labels: Any, require: Any) -> Settings:
    provider = {"kind": "openai", "api_key": "sk-0123456789", "base_url": "https://h/v1", "labels": labels}
    return Settings.from_env(
        {
            "GATEWAY_PROVIDERS": json.dumps({"p": provider}),
            "GATEWAY_TENANTS": json.dumps({"acme": {"keys": [DIGEST], "require": require}}),
        }
    )


def test_labels_and_requirements() -> None:
    read = settings({"region": "eu", "zdr": True}, {"region": ["eu", "ch"], "zdr": True})

    assert read.providers[0].labels == (("region", "eu"), ("zdr", "true"))
    assert read.tenants[0].require == (("region", ("eu", "ch")), ("zdr", ("true",)))
    assert not [line for line in read.warnings() if "acme" in line]


def test_a_tenant_that_no_provider_will_do_for_is_warned_of() -> None:
    (line,) = [line for line in settings({"region": "us"}, {"region": "eu"}).warnings() if "acme" in line]

    assert "no provider has the labels" in line


@pytest.mark.parametrize(
    ("labels", "require"),
    [
        ({"region": 5}, {}),
        ({"region": ""}, {}),
        ({"a b": "x"}, {}),
        ({"region": ["eu"]}, {}),
        (["eu"], {}),
        ({}, {"region": []}),
        ({}, {"region": {"x": 1}}),
        ({}, {"": "eu"}),
        ({}, "eu"),
    ],
)
def test_what_is_no_label(labels: Any, require: Any) -> None:
    with pytest.raises(SettingsError):
        settings(labels, require)


def test_a_guard_that_is_no_object_and_headers_that_are_too_many() -> None:
    with pytest.raises(SettingsError, match="GATEWAY_GUARDS"):
        Settings.from_env({"GATEWAY_OPEN": "true", "GATEWAY_GUARDS": '{"pii": "https://x"}'})
    many = {f"x-{number}": "1" for number in range(40)}
    provider = {"kind": "openai", "api_key": "sk-0123456789", "base_url": "https://h/v1", "headers": many}
    with pytest.raises(SettingsError, match="at most 32"):
        Settings.from_env({"GATEWAY_OPEN": "true", "GATEWAY_PROVIDERS": json.dumps({"p": provider})})


def test_credentials_of_a_provider_that_there_is_not() -> None:
    tenant = {"keys": [DIGEST], "credentials": {"nobody": "sk-0123456789"}}
    variables = {"OPENAI_API_KEY": "sk-0123456789", "GATEWAY_TENANTS": json.dumps({"acme": tenant})}
    with pytest.raises(SettingsError, match="the name of a provider"):
        Settings.from_env(variables)


def test_credentials_of_a_provider_that_takes_none() -> None:
    tenant = {"keys": [DIGEST], "credentials": {"local": "sk-0123456789"}}
    local = {"kind": "openai", "base_url": "http://127.0.0.1:11434/v1", "auth": "none"}
    variables = {"GATEWAY_PROVIDERS": json.dumps({"local": local}), "GATEWAY_TENANTS": json.dumps({"acme": tenant})}
    with pytest.raises(SettingsError, match="only for a provider that takes a credential"):
        Settings.from_env(variables)


def test_a_collector_that_is_off_stays_off(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-0123456789")
    gc.disable()
    try:
        key = f"file:{tmp_path / 'key'}"
        read = Settings.from_env({"OPENAI_API_KEY": key, "ANTHROPIC_API_KEY": key, "GATEWAY_OPEN": "true"})
        assert not gc.isenabled()
        assert len(read.files) == 1, "a file that two variables name is one"
    finally:
        gc.enable()
