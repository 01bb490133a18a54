"""Ways to know a tenant other than by key: each whole, or a complaint that names what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway_middleware.commands.check import describe
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.settings import Settings

BASE = {"OPENAI_API_KEY": "sk-0123456789"}
SECRET = "a-secret-of-sixteen-characters"
HEADER = {
    "GATEWAY_TENANT_HEADER": "X-Tenant-ID",
    "GATEWAY_TRUSTED_PROXIES": "10.0.0.0/8, ::1,unix:,unix:/run/gateway.sock",
    "GATEWAY_TENANT_HEADER_SECRET": SECRET,
}
JWT = {"GATEWAY_JWT_ISSUER": "https://id.test/", "GATEWAY_JWT_AUDIENCE": "gateway"}


def complaints(environment: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(BASE | environment)
    assert SECRET not in str(caught.value)
    return caught.value.complaints


def test_a_header_is_a_way_to_know_tenants() -> None:
    settings = Settings.from_env(BASE | HEADER)
    assert (settings.tenant_header, settings.knows_tenants) == ("x-tenant-id", True)
    assert settings.trusted_proxies == ("10.0.0.0/8", "::1", "unix:", "unix:/run/gateway.sock")


def test_tokens_are_a_way_to_know_tenants() -> None:
    settings = Settings.from_env(BASE | JWT | {"GATEWAY_JWT_ALGORITHMS": "ES256,ES384"})
    assert (settings.jwt_issuer, settings.jwt_audience) == ("https://id.test/", "gateway")
    assert (settings.jwt_tenant_claim, settings.jwt_algorithms) == ("tenant", ("ES256", "ES384"))


def test_where_keys_and_tenants_are_in_it() -> None:
    more = {"GATEWAY_JWT_JWKS_URL": "https://id.test/keys", "GATEWAY_JWT_TENANT_CLAIM": "https://x.test/tenant"}
    settings = Settings.from_env(BASE | JWT | more)
    assert (settings.jwt_jwks_url, settings.jwt_tenant_claim) == ("https://id.test/keys", "https://x.test/tenant")
    near = Settings.from_env(BASE | JWT | {"GATEWAY_JWT_JWKS_URL": "http://127.0.0.1:9/keys"})
    assert near.jwt_jwks_url == "http://127.0.0.1:9/keys"


def test_tenants_that_others_know_need_no_keys() -> None:
    (tenant,) = Settings.from_env(BASE | JWT | {"GATEWAY_TENANTS": '{"acme": {"requests": "5/minute"}}'}).tenants
    assert (tenant.keys, tenant.limits.requests) == ((), "5/minute")


def test_a_host_with_a_resolver_of_its_own_lists_nobody_and_opens_nothing() -> None:
    settings = Settings.from_env(BASE, has_resolver=True)
    assert (settings.is_open, settings.knows_tenants) == (False, False)


@pytest.mark.parametrize("missing", HEADER)
def test_a_header_needs_all_of_it(missing: str) -> None:
    listed = complaints({name: value for name, value in HEADER.items() if name != missing})
    assert any(line.startswith(f"{missing}: missing") for line in listed) or missing == "GATEWAY_TRUSTED_PROXIES"


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        (HEADER | {"GATEWAY_TENANT_HEADER": "x_tenant"}, "GATEWAY_TENANT_HEADER='x_tenant': expected the name of a he"),
        (HEADER | {"GATEWAY_TENANT_HEADER": "Authorization"}, "expected a header that means nothing else"),
        (HEADER | {"GATEWAY_TENANT_HEADER": "X-Gateway-Key"}, "expected a header that means nothing else"),
        (
            HEADER | {"GATEWAY_TRUSTED_PROXIES": "10.0.0.1/8"},
            "GATEWAY_TRUSTED_PROXIES='10.0.0.1/8': expected an addres",
        ),
        (HEADER | {"GATEWAY_TRUSTED_PROXIES": "proxy.test"}, "expected an address, a network"),
        (HEADER | {"GATEWAY_TENANT_HEADER_SECRET": "short"}, "GATEWAY_TENANT_HEADER_SECRET=[redacted]: expected at le"),
        ({"GATEWAY_JWT_ISSUER": "https://id.test"}, "GATEWAY_JWT_AUDIENCE: missing: GATEWAY_JWT_ISSUER needs it"),
        (JWT | {"GATEWAY_JWT_ISSUER": "issuer"}, "GATEWAY_JWT_JWKS_URL: missing: an issuer that is no https:// URL"),
        (JWT | {"GATEWAY_JWT_JWKS_URL": "http://id.test/keys"}, "expected https: plain http only to loopback"),
        (
            JWT | {"GATEWAY_JWT_ALGORITHMS": "HS256"},
            "GATEWAY_JWT_ALGORITHMS='HS256': expected algorithms of one family",
        ),
        (JWT | {"GATEWAY_JWT_ALGORITHMS": "none"}, "expected algorithms of one family"),
        (JWT | {"GATEWAY_JWT_ALGORITHMS": "RS256,ES256"}, "expected algorithms of one family"),
    ],
)
def test_what_cannot_be(environment: dict[str, str], complaint: str) -> None:
    assert any(complaint in line for line in complaints(environment)), complaints(environment)


def test_a_file_lists_them(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    listed = 'tenant_header = "X-T"\ntrusted_proxies = ["10.0.0.0/8", "unix:"]\n'
    file.write_text(f'{listed}tenant_header_secret = "{SECRET}"\njwt_algorithms = ["PS256"]\n')
    settings = Settings.from_env(BASE | JWT | {"GATEWAY_CONFIG_FILE": str(file)})
    assert (settings.trusted_proxies, settings.jwt_algorithms) == (("10.0.0.0/8", "unix:"), ("PS256",))
    file.write_text(f'{listed.replace("10.0.0.0/8", "x")}tenant_header_secret = "{SECRET}"\njwt_algorithms = [5]\n')
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(BASE | JWT | {"GATEWAY_CONFIG_FILE": str(file)})
    assert len(caught.value.complaints) == 3


def test_what_works_and_may_not_be_meant_is_said() -> None:
    wide = HEADER | {"GATEWAY_TRUSTED_PROXIES": "0.0.0.0/0"}
    policy = {"GATEWAY_POLICY_ADAPTER_URL": "https://p.test", "GATEWAY_POLICY_ON_OUTAGE": "allow"}
    lines = Settings.from_env(BASE | wide | policy).warnings()
    assert [line.partition(":")[0] for line in lines] == ["GATEWAY_TRUSTED_PROXIES", "GATEWAY_POLICY_ON_OUTAGE"]
    assert Settings.from_env(BASE | HEADER | JWT).warnings() == ()


def test_check_says_how_tenants_are_known() -> None:
    policy = {"GATEWAY_POLICY_ADAPTER_URL": "http://p.test/v1/data/x"}
    lines = list(describe(Settings.from_env(BASE | HEADER | JWT | policy)))
    assert "  by the header x-tenant-id from 10.0.0.0/8, ::1, unix:, unix:/run/gateway.sock" in lines
    assert "  by the claim tenant of tokens of https://id.test/, signed by RS256" in lines
    assert "  asked about at the policy-adapter http://p.test/v1/data/x; on outage: refuse" in lines
    assert SECRET not in "".join(lines)


ADMIN = {"GATEWAY_ADMIN_TOKEN": "an-admin-token-of-some-length"}


def test_with_an_admin_token_keys_may_be_made_later() -> None:
    (tenant,) = Settings.from_env(BASE | ADMIN | {"GATEWAY_TENANTS": '{"acme": {}}'}).tenants
    assert tenant.keys == ()
    assert Settings.from_env(BASE | ADMIN | {"GATEWAY_TENANTS": "{}"}).knows_tenants
    assert complaints({"GATEWAY_TENANTS": '{"acme": {}}'})
    assert complaints({"GATEWAY_TENANTS": "{}"})
    assert complaints(ADMIN)


@pytest.mark.parametrize(
    ("more", "is_warned"),
    [
        ({}, False),
        ({"GATEWAY_JOURNAL": "off"}, True),
        ({"GATEWAY_JOURNAL": "off", "GATEWAY_FLEET_DIRECTORY": "/var/lib/fleet"}, False),
        ({"GATEWAY_JOURNAL": "off", "GATEWAY_STORAGE_URI": "redis://h"}, False),
    ],
)
def test_keys_that_would_be_lost_are_warned_about(more: dict[str, str], is_warned: bool) -> None:
    lines = Settings.from_env(BASE | ADMIN | {"GATEWAY_TENANTS": "{}"} | more).warnings()
    assert any("lost when the process ends" in line for line in lines) is is_warned
