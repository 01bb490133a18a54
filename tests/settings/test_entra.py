"""Azure without a key: the vendor's own variables, or the option `entra`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway_middleware.core.errors import SettingsError
from gateway_middleware.core.provider_api import EntraConfig
from gateway_middleware.core.secret import Secret
from gateway_middleware.settings import Settings

BASE = {"AZURE_OPENAI_ENDPOINT": "https://r.openai.azure.com", "GATEWAY_OPEN": "true"}
SECRET = {"AZURE_TENANT_ID": "t-1", "AZURE_CLIENT_ID": "c-1", "AZURE_CLIENT_SECRET": "a-client-secret"}


def entra(environment: dict[str, str], **option: Any) -> EntraConfig | None:
    listed = {"z": {"kind": "azure_openai", "base_url": "https://z.test", **option}}
    more = {"GATEWAY_PROVIDERS": json.dumps(listed)} if option else {}
    return Settings.from_env(BASE | environment | more).providers[-1].entra


def complaints(environment: dict[str, str], **option: Any) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        entra(environment, **option)
    assert "a-client-secret" not in str(caught.value)
    return caught.value.complaints


def test_the_vendors_variables() -> None:
    assert entra(SECRET) == EntraConfig(tenant_id="t-1", client_id="c-1", client_secret=Secret("a-client-secret"))
    file = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_FEDERATED_TOKEN_FILE": "/var/run/token"}
    authority = {"AZURE_AUTHORITY_HOST": "https://login.microsoftonline.us/"}
    assert entra(file | authority) == EntraConfig(
        tenant_id="t", client_id="c", token_file="/var/run/token", authority="https://login.microsoftonline.us"
    )


def test_without_any_it_is_the_managed_identity_of_the_machine() -> None:
    assert entra({}) == EntraConfig()
    assert entra({"AZURE_CLIENT_ID": "c"}) == EntraConfig(client_id="c")
    service = {"IDENTITY_ENDPOINT": "http://127.0.0.1:41/msi/token", "IDENTITY_HEADER": "h"}
    assert entra(service) == EntraConfig(identity_endpoint="http://127.0.0.1:41/msi/token", identity_header=Secret("h"))


def test_a_key_is_a_key() -> None:
    assert entra(SECRET | {"AZURE_OPENAI_API_KEY": "k"}) is None
    assert entra(SECRET, api_key="k") is None


def test_the_option_says_all_that_counts_for_its_provider() -> None:
    option = {"tenant_id": "t-2", "client_id": "c-2", "client_secret": "env:S", "scope": "https://x.test/.default"}
    config = entra(SECRET | {"S": "another-secret"}, entra=option)
    assert config == EntraConfig(
        tenant_id="t-2", client_id="c-2", client_secret=Secret("another-secret"), scope="https://x.test/.default"
    )
    assert entra(SECRET, entra={}) == EntraConfig()


@pytest.mark.parametrize(
    ("environment", "option", "complaint"),
    [
        (
            {"AZURE_CLIENT_SECRET": "a-client-secret"},
            {},
            "AZURE_CLIENT_SECRET: expected also AZURE_TENANT_ID and AZURE_CL",
        ),
        ({**SECRET, "AZURE_TENANT_ID": "t/../x"}, {}, "AZURE_TENANT_ID='t/../x': expected an id"),
        ({**SECRET, "AZURE_AUTHORITY_HOST": "http://evil.test"}, {}, "expected https: plain http only to loopback"),
        (
            {},
            {"entra": {"token_file": "/f", "client_id": "c"}},
            "entra.token_file: expected also GATEWAY_PROVIDERS.z.entra.",
        ),
        ({}, {"entra": {"scope": "https://x.test/"}}, "expected a scope that ends in /.default"),
        ({}, {"entra": {"secret": "x"}}, "entra.secret: unknown name"),
        ({}, {"entra": {}, "api_key": "k"}, "expected either this or api_key"),
        ({}, {"kind": "openai", "api_key": "k", "entra": {}}, "expected only with kind azure_openai"),
    ],
)
def test_what_cannot_be(environment: dict[str, str], option: dict[str, Any], complaint: str) -> None:
    assert any(complaint in line for line in complaints(environment, **option)), complaints(environment, **option)


def test_no_secret_is_printed() -> None:
    settings = Settings.from_env(BASE | SECRET)
    assert "a-client-secret" not in f"{settings!r}{settings.config_hash}"
    other = Settings.from_env(BASE | SECRET | {"AZURE_CLIENT_SECRET": "another"})
    assert other.config_hash == settings.config_hash
