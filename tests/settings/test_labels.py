"""Labels of providers, and what tenants require."""

from __future__ import annotations

import json
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
