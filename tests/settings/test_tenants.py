"""Tenants: digests, limits, patterns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway_middleware.core.errors import SettingsError
from gateway_middleware.settings import Settings, TenantSettings
from gateway_middleware.settings.tree import LimitSettings
from gateway_middleware.tenancy.keys import TenantKey, digest, hmac_digest

KEY_SECRET = "a-secret-of-24-characters"
ONE, TWO = digest(b"one"), digest(b"two")
ENVIRON = {"OPENAI_API_KEY": "sk-0123456789"}


def tenants(value: Any, **variables: str) -> tuple[TenantSettings, ...]:
    return Settings.from_env(ENVIRON | {"GATEWAY_TENANTS": json.dumps(value)} | variables).tenants


def complaints(value: Any, **variables: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        tenants(value, **variables)
    return caught.value.complaints


def test_a_tenant_has_every_option() -> None:
    value = {
        "keys": [ONE, TWO.upper().replace("SHA", "sha")],
        "requests": "600/minute",
        "tokens": "200000/minute",
        "concurrency": 50,
        "spend": "100/month",
        "models": ["gpt-*", "eu/*"],
        "shadow": ["tokens"],
        "on_outage": "open",
        "priority": 2,
        "per_key": {"concurrency": 5, "shadow": True},
        "per_model": {"gpt-5*": {"tokens": "1000/minute"}},
    }
    assert tenants({"acme": value}) == (
        TenantSettings(
            name="acme",
            keys=(TenantKey(ONE), TenantKey(TWO)),
            limits=LimitSettings(
                requests="600/minute",
                tokens="200000/minute",
                concurrency=50,
                spend="100/month",
                shadow=("tokens",),
                on_outage="open",
            ),
            per_key=LimitSettings(concurrency=5, shadow=("requests", "tokens", "concurrency", "spend")),
            per_model=(("gpt-5*", LimitSettings(tokens="1000/minute")),),
            priority=2,
            models=("gpt-*", "eu/*"),
        ),
    )


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"shadow": ["tokns"]}, "shadow[0]='tokns': expected one of requests, tokens, concurrency, spend"),
        ({"on_outage": "panic"}, "on_outage='panic': expected one of share, open, closed"),
        ({"per_key": {"rpm": 1}}, "per_key.rpm: unknown name; expected one of requests, tokens, concurrency, spend, "),
        ({"per_model": {"gpt-*": {"tokens": "lots"}}}, "per_model.'gpt-*'.tokens='lots': "),
        ({"priority": 1000}, "priority=1000: expected an integer from -100 to 100"),
    ],
)  # fmt: skip
def test_bad_limits(more: dict[str, object], line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        tenants({"a": {"keys": [ONE], **more}})
    assert caught.value.complaints[0].startswith(f"GATEWAY_TENANTS.a.{line}")


def test_digests_come_from_variables_and_files(tmp_path: Path) -> None:
    listed = tmp_path / "digests"
    listed.write_text(f"{ONE}\n{TWO}\n")
    (acme,) = tenants({"acme": {"keys": [f"file:{listed}", "env:MORE"]}}, MORE=f"{digest(b'3')}, {digest(b'4')}")
    assert [key.digest for key in acme.keys] == [ONE, TWO, digest(b"3"), digest(b"4")]


def test_one_key_needs_no_list() -> None:
    assert tenants({"acme": {"keys": ONE}})[0].keys == (TenantKey(ONE),)


def test_hmac_digests_need_their_secret() -> None:
    keyed = hmac_digest(b"one", KEY_SECRET.encode())
    assert tenants({"acme": {"keys": [keyed]}}, GATEWAY_KEY_SECRET=KEY_SECRET)[0].keys == (TenantKey(keyed),)
    assert complaints({"acme": {"keys": [keyed]}}) == (
        f"GATEWAY_TENANTS.acme.keys: {keyed[:20]}... needs GATEWAY_KEY_SECRET, which is not set",
    )


T = "GATEWAY_TENANTS.t"
_LISTED = (
    "expected sha256:<64 hex digits> or hmac-sha256:<64 hex digits>, never the key itself; "
    "`model-gateway keys hash` makes it"
)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({"t": 5}, f"{T}=5: expected an object"),
        (
            {"t": {}},
            f"{T}.keys: missing: expected a list of digests; `model-gateway keys new` makes one",
        ),
        ({"t": {"keys": []}}, f"{T}.keys=[...]: expected a list of digests that is not empty"),
        ({"t": {"keys": ["gw-plain-key"]}}, f"{T}.keys[0]=[redacted]: {_LISTED}"),
        ({"t": {"keys": "gw-plain-key"}}, f"{T}.keys=[redacted]: {_LISTED}"),
        ({"t": {"keys": [ONE[:-1]]}}, f"{T}.keys[0]=[redacted]: {_LISTED}"),
        ({"t": {"keys": [3]}}, f"{T}.keys[0]=[redacted]: expected text, env:NAME or file:/path"),
        ({"t": {"keys": ["env:NONE"]}}, f"{T}.keys[0]=env:NONE: this variable is not set"),
        ({"t": {"keys": ["env:PLAIN"]}}, f"{T}.keys[0]=env:PLAIN: {_LISTED}"),
        ({"t": {"keys": [ONE, ONE]}}, f"{T}.keys: {ONE[:15]}... is listed for tenant t already; expected once"),
        (
            {"s": {"keys": [ONE]}, "t": {"keys": [ONE.replace("sha256:", "sha256:").lower()]}},
            f"{T}.keys: {ONE[:15]}... is listed for tenant s already; expected once",
        ),
        ({"t": {"keys": [ONE], "key": "x"}}, f"{T}.key: unknown name; did you mean 'keys'?"),
        (
            {"t": {"keys": [ONE], "requests": "600"}},
            f"{T}.requests='600': expected a limit such as 600/minute or 10/second;1000/hour",
        ),
        (
            {"t": {"keys": [ONE], "tokens": 600}},
            f"{T}.tokens=600: expected a limit such as 600/minute or 10/second;1000/hour",
        ),
        (
            {"t": {"keys": [ONE], "concurrency": "many"}},
            f"{T}.concurrency='many': expected an integer from 1 to 1000000",
        ),
        (
            {"t": {"keys": [ONE], "spend": "$5"}},
            f"{T}.spend='$5': expected an amount per period such as 100/month or 2.50/day",
        ),
        (
            {"t": {"keys": [ONE], "models": []}},
            f"{T}.models=[...]: expected a list of model patterns that is not empty",
        ),
        (
            {"t": {"keys": [ONE], "models": ["a\tb"]}},
            f"{T}.models[0]='a\\tb': expected a model name or a pattern such as gpt-*",
        ),
        (
            {"a b": {"keys": [ONE]}},
            "GATEWAY_TENANTS.'a b': expected a tenant name of letters, digits and . _ @ - (at most 64)",
        ),
    ],
)
def test_bad_tenants(value: Any, line: str) -> None:
    assert complaints(value, PLAIN="gw-plain-key") == (line,)


def test_no_tenant_and_not_open_names_the_cure() -> None:
    (line,) = complaints({})
    assert "keys new" in line
    assert tenants({}, GATEWAY_OPEN="true") == ()


def test_a_key_may_have_a_name_and_an_end_so_that_two_can_be_one_during_a_rotation() -> None:
    new = {"digest": ONE, "name": "ci"}
    old = {"digest": TWO, "name": "ci", "expires": "2027-01-31T01:00:00+01:00"}
    assert tenants({"acme": {"keys": [new, old]}})[0].keys == (
        TenantKey(ONE, "ci"),
        TenantKey(TWO, "ci", 1_801_353_600.0),
    )


def test_toml_writes_moments_itself(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f'[tenants.acme]\nkeys = [{{digest = "{ONE}", expires = 2027-01-31T00:00:00Z}}]\n')
    settings = Settings.from_env(ENVIRON | {"GATEWAY_CONFIG_FILE": str(file)})
    assert settings.tenants[0].keys == (TenantKey(ONE, None, 1_801_353_600.0),)


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        ({"name": "ci"}, "keys[0].digest: missing: expected sha256:"),
        ({"digest": "gw-plain-key"}, "keys[0].digest=[redacted]: expected sha256:"),
        ({"digest": ONE, "name": "c i"}, "keys[0].name='c i': expected a name of letters"),
        ({"digest": ONE, "expires": "soon"}, "keys[0].expires='soon': expected a moment with its time zone"),
        ({"digest": ONE, "expires": "2027-01-31T00:00:00"}, "expected a moment with its time zone"),
        ({"digest": ONE, "until": 1}, "keys[0].until: unknown name"),
    ],
)
def test_bad_keys(key: Any, complaint: str) -> None:
    (line,) = complaints({"t": {"keys": [key]}})
    assert complaint in line
    assert "gw-plain-key" not in line
