"""`GATEWAY_GROUPS`, and limits of end users."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway_middleware import Settings
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.settings.tree import GroupSettings, LimitSettings

DIGEST = "sha256:" + "0" * 64
ENVIRONMENT = {"OPENAI_API_KEY": "sk-0123456789", "GATEWAY_TENANTS": json.dumps({"acme": {"keys": [DIGEST]}})}


def read(groups: Any, **more: str) -> Settings:
    return Settings.from_env({**ENVIRONMENT, "GATEWAY_GROUPS": json.dumps(groups), **more})


def test_a_group() -> None:
    groups = read({"research": {"tenants": ["acme"], "requests": "5/minute", "spend": "9/day"}})
    assert groups.groups == (
        GroupSettings(name="research", tenants=("acme",), limits=LimitSettings(requests="5/minute", spend="9/day")),
    )
    assert groups.limits_spend
    assert not any("group" in warning for warning in groups.warnings())


@pytest.mark.parametrize(
    ("groups", "complaint"),
    [
        ({"g": {}}, "tenants"),
        ({"g": {"tenants": []}}, "tenants"),
        ({"g": {"tenants": ["a", "a"]}}, "in g already"),
        ({"g": {"tenants": ["a"]}, "h": {"tenants": ["a"]}}, "in g already"),
        ({"g": {"tenants": ["a b"]}}, "name of letters"),
        ({"g h": {"tenants": ["a"]}}, "name of letters"),
        ({"g": {"tenants": ["a"], "requests": "many"}}, "requests"),
        ({"g": {"tenants": ["a"], "members": ["b"]}}, "members"),
    ],
)
def test_groups_that_are_none(groups: Any, complaint: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(groups)
    assert any(complaint in line for line in refused.value.complaints)


def test_a_member_that_nobody_knows_is_a_warning() -> None:
    assert "group g: GATEWAY_TENANTS does not list acmee" in read({"g": {"tenants": ["acme", "acmee"]}}).warnings()


def test_limits_of_end_users() -> None:
    tenants = {"acme": {"keys": [DIGEST], "per_end_user": {"requests": "3/minute", "spend": "1/day"}}}
    settings = read({}, GATEWAY_TENANTS=json.dumps(tenants), GATEWAY_END_USER_HEADER="X-End-User")
    assert settings.tenants[0].per_end_user == LimitSettings(requests="3/minute", spend="1/day")
    assert settings.limits_spend
    assert settings.end_user_header == "x-end-user"
