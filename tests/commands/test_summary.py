"""What `check` and a start say of what is kept where, what is off, and what has no effect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway_middleware.commands.check import describe
from gateway_middleware.commands.summary import ignored_variables, places, switched_off
from gateway_middleware.settings import Settings

ROOT = Path(__file__).parents[2]
OPEN = {"OPENAI_API_KEY": "sk-of-the-test", "GATEWAY_OPEN": "true"}


def test_what_is_kept_where_by_default() -> None:
    assert list(places(Settings.from_env(OPEN))) == [
        "journal ./gateway-journal.db",
        "usage events off: they stay in the journal (GATEWAY_USAGE_METERING_URL)",
        "limits and news memory://",
        "limits of a tenant that names none: none",
        "admin off (GATEWAY_ADMIN_TOKEN)",
        "metrics open to whoever asks (GATEWAY_METRICS_TOKEN)",
        "files watched: none",
    ]


def test_what_is_kept_where_without_a_password(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("sk-in-a-file")
    environment = {
        "OPENAI_API_KEY": f"file:{secret}", "GATEWAY_OPEN": "true", "GATEWAY_STORAGE_URI": "redis://u:hunter2@r:1/0",
        "GATEWAY_ADMIN_TOKEN": "0123456789abcdef", "GATEWAY_METRICS_TOKEN": "m", "GATEWAY_DEFAULT_REQUESTS": "5/minute",
        "GATEWAY_DEFAULT_CONCURRENCY": "7", "GATEWAY_USAGE_METERING_URL": "https://m.test/e",
        "GATEWAY_WATCH_SECONDS": "5",
    }  # fmt: skip
    assert list(places(Settings.from_env(environment)))[1:] == [
        "usage events https://m.test/e",
        "limits and news redis://r:1/0",
        "limits of a tenant that names none: requests 5/minute, concurrency 7",
        "admin on",
        "metrics with a token",
        f"files watched: {secret}, every 5 s",
    ]
    off = switched_off(Settings.from_env(environment))
    assert off == ["queue (GATEWAY_QUEUE_SECONDS)", "tracing (GATEWAY_TRACING)"]
    never = Settings.from_env(environment | {"GATEWAY_WATCH_SECONDS": "0", "GATEWAY_JOURNAL": "off"})
    assert "files watched: " + str(secret) + ", never (GATEWAY_WATCH_SECONDS)" in places(never)
    assert "usage events off: there is no journal" in places(never)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "SSL_CERT_FILE", "SSLKEYLOGFILE"])
def test_variables_for_proxies_and_certificates_are_said_to_have_no_effect(name: str) -> None:
    (line,) = ignored_variables({name: "something", "PATH": "/bin"})
    assert line.startswith(f"{name}: ignored: ")
    assert f"warning: {line}" in describe(Settings.from_env(OPEN), {name: "something"})


def test_a_base_url_without_v1_and_a_plain_sink_are_warned_of() -> None:
    odd = OPEN | {"OPENAI_BASE_URL": "https://api.example", "GATEWAY_USAGE_METERING_URL": "http://metering.example/e"}
    plain, sink = Settings.from_env(odd).warnings()[1:]
    assert plain == "provider openai: https://api.example has no path; what OpenAI's SDK takes mostly ends in /v1"
    assert sink == (
        "GATEWAY_USAGE_METERING_URL: usage events and their token travel unencrypted to http://metering.example/e"
    )
    well = {"OPENAI_BASE_URL": "https://api.example/v1", "GATEWAY_USAGE_METERING_URL": "http://127.0.0.1/e"}
    assert len(Settings.from_env(OPEN | well).warnings()) == 1


def test_a_policy_adapter_and_guards_that_are_reached_without_encryption_are_warned_of() -> None:
    guards = json.dumps(
        {name: {"url": url} for name, url in (("far", "http://guard.example/g"), ("own", "http://[::1]/"))}
    )
    plain = OPEN | {"GATEWAY_POLICY_ADAPTER_URL": "http://policy-adapter/v1/data/g/a", "GATEWAY_GUARDS": guards}
    assert Settings.from_env(plain).warnings()[1:] == (
        "GATEWAY_POLICY_ADAPTER_URL: questions, token and answers travel unencrypted to http://policy-adapter/v1/data/g/a",
        "guard far: prompts, answers and its token travel unencrypted to http://guard.example/g",
    )
    own = {"GATEWAY_POLICY_ADAPTER_URL": "http://localhost:8181/v1/data/g/a"}
    assert len(Settings.from_env(OPEN | own).warnings()) == 1


def test_the_example_file_is_read_whole() -> None:
    names = ("OPENAI_KEY", "ANTHROPIC_KEY", "AZURE_EU_KEY", "ADMIN_TOKEN")
    secrets = {name: f"{name}-0123456789" for name in names}
    settings = Settings.from_env(secrets | {"GATEWAY_CONFIG_FILE": str(ROOT / "docs" / "examples" / "gateway.toml")})
    assert [provider.name for provider in settings.providers] == ["openai", "anthropic", "azure-eu", "local"]
    assert [route.name for route in settings.routes] == ["fast", "claude", "cheap"]
    assert [tenant.name for tenant in settings.tenants] == ["acme", "research"]
    assert settings.warnings() == ()
    assert json.dumps([name for name, _ in settings.prices]) == '["azure-eu/gpt5mini", "local/llama"]'
