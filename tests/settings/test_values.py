"""Single values: what is taken, and the exact line for what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway_middleware.core.errors import SettingsError
from gateway_middleware.settings import Secret, Settings, key_secret

MINIMAL = {"OPENAI_API_KEY": "sk-test-0123456789", "GATEWAY_OPEN": "true"}


TENANT = '{"acme": {"keys": ["sha256:' + "0" * 64 + '"], %s}}'


def read(**variables: str) -> Settings:
    return Settings.from_env(MINIMAL | variables)


def complaints(**variables: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        read(**variables)
    return caught.value.complaints


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("GATEWAY_PORT", "0", "port", 0),
        ("GATEWAY_PORT", "65535", "port", 65535),
        ("GATEWAY_HOST", "0.0.0.0", "host", "0.0.0.0"),
        ("GATEWAY_HOST", "::", "host", "::"),
        ("GATEWAY_HOST", "gateway.internal", "host", "gateway.internal"),
        ("GATEWAY_WORKERS", "4", "workers", 4),
        ("GATEWAY_OPEN", "YES", "is_open", True),
        ("GATEWAY_OPEN", "1", "is_open", True),
        ("GATEWAY_DRAIN_SECONDS", "2.5", "drain_seconds", 2.5),
        ("GATEWAY_MAX_BODY_BYTES", "1024", "max_body_bytes", 1024),
        ("GATEWAY_MAX_BODY_BYTES", "", "max_body_bytes", 32 << 20),
        ("GATEWAY_MAX_ANSWER_BYTES", "", "max_answer_bytes", 64 << 20),
        ("GATEWAY_MAX_EVENT_BYTES", "4096", "max_event_bytes", 4096),
        ("GATEWAY_MAX_EVENT_BYTES", "", "max_event_bytes", 64 << 20),
        ("GATEWAY_HEAD_SECONDS", "5", "head_seconds", 5.0),
        ("GATEWAY_BODY_SECONDS", "60", "body_seconds", 60.0),
        ("GATEWAY_IDLE_SECONDS", "350", "idle_seconds", 350.0),
        ("GATEWAY_MAX_HEAD_BYTES", "16384", "max_head_bytes", 16384),
        ("GATEWAY_MAX_HEADERS", "50", "max_headers", 50),
        ("GATEWAY_MAX_CONNECTIONS", "500", "max_connections", 500),
        ("GATEWAY_MAX_BODIES_BYTES", "536870912", "max_bodies_bytes", 536870912),
        ("GATEWAY_MAX_TENANT_BODIES_BYTES", "67108865", "max_tenant_bodies_bytes", 67108865),
        ("GATEWAY_HALF_CLOSE", "allow", "half_close", "allow"),
        ("GATEWAY_METRICS_TOKEN", "t", "metrics_token", Secret("t")),
        ("GATEWAY_ADMIN_TOKEN", "0123456789abcdef", "admin_token", Secret("0123456789abcdef")),
        ("GATEWAY_KEY_SECRET", "0123456789abcdef", "key_secret", Secret("0123456789abcdef")),
        ("GATEWAY_DEFAULT_REQUESTS", "600/minute;5 per second", "default_requests", "600/minute;5 per second"),
        ("GATEWAY_DEFAULT_TOKENS", "200000/minute", "default_tokens", "200000/minute"),
        ("GATEWAY_DEFAULT_CONCURRENCY", "50", "default_concurrency", 50),
        ("GATEWAY_DEFAULT_SPEND", "12.50/day", "default_spend", "12.50/day"),
        ("GATEWAY_DEFAULT_SPEND", "100 per 2 months", "default_spend", "100 per 2 months"),
        ("GATEWAY_STORAGE_URI", "redis://:pw@redis:6379/0", "storage_uri", Secret("redis://:pw@redis:6379/0")),
        (
            "GATEWAY_STORAGE_URI",
            "redis+unix:///run/r.sock?db=2",
            "storage_uri",
            Secret("redis+unix:///run/r.sock?db=2"),
        ),
        ("GATEWAY_JOURNAL", "/var/lib/gateway/journal.db", "journal", "/var/lib/gateway/journal.db"),
        ("GATEWAY_MAX_ATTEMPTS", "5", "max_attempts", 5),
        ("GATEWAY_BREAKER", "shadow", "breaker", "shadow"),
        ("GATEWAY_USAGE_METERING_URL", "http://meter:9/events/", "usage_metering_url", "http://meter:9/events"),
        ("GATEWAY_USAGE_METERING_TOKEN", "t", "usage_metering_token", Secret("t")),
        ("GATEWAY_EVENT_SOURCE", "/model-gateway/eu", "event_source", "/model-gateway/eu"),
        ("GATEWAY_EVENT_TYPE", "com.example.llm.usage", "event_type", "com.example.llm.usage"),
        ("GATEWAY_EVENT_SCHEMA", "https://schemas.test/usage.json", "event_schema", "https://schemas.test/usage.json"),
        ("GATEWAY_PORT", "", "port", 8080),
    ],
)
def test_good_values(variable: str, text: str, field: str, value: object) -> None:
    assert getattr(read(**{variable: text}), field) == value


NOT_NUMBER = "expected seconds: a number above 0, at most 86400"
NOT_LIMIT = "expected a limit such as 600/minute or 10/second;1000/hour"
NOT_SPEND = "expected an amount per period such as 100/month or 2.50/day"
NOT_KEY = "expected printable ASCII without spaces or line ends"
NOT_URL = "expected http(s)://host[:port][/path], without user, query or fragment"
NO_SCHEME = "(no scheme of Redis)"
NOT_STORAGE = "expected memory:// or redis://, rediss://, redis+unix://, redis+sentinel:// or redis+cluster://"


@pytest.mark.parametrize(
    ("variable", "text", "line"),
    [
        ("GATEWAY_PORT", "abc", "GATEWAY_PORT='abc': expected an integer from 0 to 65535"),
        ("GATEWAY_PORT", "-1", "GATEWAY_PORT='-1': expected an integer from 0 to 65535"),
        ("GATEWAY_PORT", "65536", "GATEWAY_PORT='65536': expected an integer from 0 to 65535"),
        ("GATEWAY_PORT", "8_080", "GATEWAY_PORT='8_080': expected an integer from 0 to 65535"),
        ("GATEWAY_PORT", "8080\n", "GATEWAY_PORT='8080\\n': expected an integer from 0 to 65535"),
        ("GATEWAY_PORT", "\u0668", "GATEWAY_PORT='\\u0668': expected an integer from 0 to 65535"),
        ("GATEWAY_PORT", "9" * 5000, f"GATEWAY_PORT='{'9' * 60}...': expected an integer from 0 to 65535"),
        (
            "GATEWAY_PORT",
            "tcp://10.0.0.1:80",
            (
                "GATEWAY_PORT='tcp://10.0.0.1:80': expected an integer from 0 to 65535; a Kubernetes Service named "
                "gateway sets this: enableServiceLinks: false in the pod stops it"
            ),
        ),
        ("GATEWAY_HOST", "a b", "GATEWAY_HOST='a b': expected a host name or an IP address to listen on"),
        ("GATEWAY_WORKERS", "0", "GATEWAY_WORKERS='0': expected an integer from 1 to 256"),
        ("GATEWAY_OPEN", "maybe", "GATEWAY_OPEN='maybe': expected true or false"),
        ("GATEWAY_DRAIN_SECONDS", "0", f"GATEWAY_DRAIN_SECONDS='0': {NOT_NUMBER}"),
        ("GATEWAY_DRAIN_SECONDS", "nan", f"GATEWAY_DRAIN_SECONDS='nan': {NOT_NUMBER}"),
        ("GATEWAY_DRAIN_SECONDS", "1e3", f"GATEWAY_DRAIN_SECONDS='1e3': {NOT_NUMBER}"),
        ("GATEWAY_MAX_BODY_BYTES", "10MB", "GATEWAY_MAX_BODY_BYTES='10MB': expected an integer from 1 to 1073741824"),
        ("GATEWAY_HEAD_SECONDS", "0", f"GATEWAY_HEAD_SECONDS='0': {NOT_NUMBER}"),
        ("GATEWAY_BODY_SECONDS", "-1", f"GATEWAY_BODY_SECONDS='-1': {NOT_NUMBER}"),
        ("GATEWAY_IDLE_SECONDS", "never", f"GATEWAY_IDLE_SECONDS='never': {NOT_NUMBER}"),
        ("GATEWAY_MAX_HEAD_BYTES", "0", "GATEWAY_MAX_HEAD_BYTES='0': expected an integer from 1024 to 1048576"),
        ("GATEWAY_MAX_HEADERS", "0", "GATEWAY_MAX_HEADERS='0': expected an integer from 1 to 10000"),
        ("GATEWAY_MAX_CONNECTIONS", "0", "GATEWAY_MAX_CONNECTIONS='0': expected an integer from 1 to 1000000"),
        (
            "GATEWAY_MAX_BODIES_BYTES",
            "1G",
            "GATEWAY_MAX_BODIES_BYTES='1G': expected an integer from 1024 to 1099511627776",
        ),
        ("GATEWAY_HALF_CLOSE", "keep", "GATEWAY_HALF_CLOSE='keep': expected one of leave, allow"),
        ("GATEWAY_DEFAULT_REQUESTS", "many", f"GATEWAY_DEFAULT_REQUESTS='many': {NOT_LIMIT}"),
        ("GATEWAY_DEFAULT_TOKENS", "5/fortnight", f"GATEWAY_DEFAULT_TOKENS='5/fortnight': {NOT_LIMIT}"),
        ("GATEWAY_DEFAULT_SPEND", "100", f"GATEWAY_DEFAULT_SPEND='100': {NOT_SPEND}"),
        ("GATEWAY_DEFAULT_SPEND", "1/0 day", f"GATEWAY_DEFAULT_SPEND='1/0 day': {NOT_SPEND}"),
        ("GATEWAY_DEFAULT_CONCURRENCY", "0", "GATEWAY_DEFAULT_CONCURRENCY='0': expected an integer from 1 to 1000000"),
        ("GATEWAY_BREAKER", "ON", "GATEWAY_BREAKER='ON': expected one of on, off, shadow"),
        ("GATEWAY_JOURNAL", "a\nb", "GATEWAY_JOURNAL='a\\nb': expected the path of a file"),
        ("GATEWAY_ADMIN_TOKEN", "short", "GATEWAY_ADMIN_TOKEN=[redacted]: expected at least 16 characters"),
        ("GATEWAY_METRICS_TOKEN", "a b", f"GATEWAY_METRICS_TOKEN=[redacted]: {NOT_KEY}"),
        (
            "GATEWAY_STORAGE_URI",
            "postgres://:pw@db",
            f"GATEWAY_STORAGE_URI=[redacted]: {NOT_STORAGE} {NO_SCHEME}",
        ),
        (
            "GATEWAY_STORAGE_URI",
            "redis+cluster://:pw@",
            f"GATEWAY_STORAGE_URI=[redacted]: {NOT_STORAGE} (a host is missing)",
        ),
        ("GATEWAY_USAGE_METERING_URL", "meter", f"GATEWAY_USAGE_METERING_URL='meter': {NOT_URL}"),
        ("OPENAI_API_KEY", "sk-with space", f"OPENAI_API_KEY=[redacted]: {NOT_KEY}"),
        ("OPENAI_API_KEY", "sk-evil\r\nx-a: b", f"OPENAI_API_KEY=[redacted]: {NOT_KEY}"),
        ("OPENAI_API_KEY", "sk-\u00e9", f"OPENAI_API_KEY=[redacted]: {NOT_KEY}"),
        ("OPENAI_BASE_URL", "ftp://h", f"OPENAI_BASE_URL='ftp://h': {NOT_URL}"),
        ("OPENAI_BASE_URL", "https://", f"OPENAI_BASE_URL='https://': {NOT_URL}"),
        ("OPENAI_BASE_URL", "https://h/\x00", f"OPENAI_BASE_URL='https://h/\\x00': {NOT_URL}"),
        ("OPENAI_BASE_URL", "https://h/\r\nhost: x", f"OPENAI_BASE_URL='https://h/\\r\\nhost: x': {NOT_URL}"),
        ("OPENAI_BASE_URL", "https://h:0/", f"OPENAI_BASE_URL='https://h:0/': {NOT_URL}"),
        ("OPENAI_BASE_URL", "https://h:65536", f"OPENAI_BASE_URL='https://h:65536': {NOT_URL}"),
        ("OPENAI_BASE_URL", "https://[::g]", f"OPENAI_BASE_URL='https://[::g]': {NOT_URL}"),
        ("OPENAI_BASE_URL", "https://h/a/../b", f"OPENAI_BASE_URL='https://h/a/../b': {NOT_URL}"),
        ("OPENAI_BASE_URL", "https://h\\@evil", f"OPENAI_BASE_URL=[redacted]: {NOT_URL}"),
        ("OPENAI_BASE_URL", "https://user:pw@h", f"OPENAI_BASE_URL=[redacted]: {NOT_URL}"),
        ("OPENAI_BASE_URL", "https://h?sig=1", f"OPENAI_BASE_URL=[redacted]: {NOT_URL}"),
        ("OPENAI_BASE_URL", "https://h#x", f"OPENAI_BASE_URL=[redacted]: {NOT_URL}"),
        ("GATEWAY_HOTS", "x", "GATEWAY_HOTS: unknown variable; did you mean 'GATEWAY_HOST'?"),
        ("GATEWAY_ZZZZZ", "x", "GATEWAY_ZZZZZ: unknown variable"),
    ],
)
def test_bad_values(variable: str, text: str, line: str) -> None:
    assert complaints(**{variable: text}) == (line,)


def test_all_faults_are_found_at_once() -> None:
    found = complaints(GATEWAY_PORT="x", GATEWAY_WORKERS="y", GATEWAY_ROUTES='{"a": "nobody/m"}', GATEWAY_TYPO="1")
    assert [line.partition("=")[0].partition(":")[0] for line in found] == [
        "GATEWAY_TYPO",
        "GATEWAY_PORT",
        "GATEWAY_WORKERS",
        "GATEWAY_ROUTES.a",
    ]


def test_nothing_set_names_both_cures() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({})
    provider, tenant = caught.value.complaints
    assert all(key in provider for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AZURE_OPENAI_API_KEY"))
    assert "keys new" in tenant
    assert "GATEWAY_OPEN=true" in tenant


def test_one_provider_key_and_open_are_enough() -> None:
    settings = read()
    assert [p.name for p in settings.providers] == ["openai"]
    assert settings.is_open


def test_kubernetes_service_links_are_not_our_variables() -> None:
    read(
        GATEWAY_SERVICE_HOST="10.0.0.1",
        GATEWAY_SERVICE_PORT="80",
        GATEWAY_SERVICE_PORT_HTTP="80",
        GATEWAY_PORT_80_TCP="tcp://10.0.0.1:80",
        GATEWAY_PORT_80_TCP_ADDR="10.0.0.1",
        GATEWAY_REDIS_SERVICE_HOST="10.0.0.2",
        GATEWAY_REDIS_PORT="tcp://10.0.0.2:6379",
    )


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (MINIMAL | {"GATEWAY_PORT": "4711"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GATEWAY_CONFIG_FILE", raising=False)
    assert Settings.from_env().port == 4711


def _warned(**variables: str) -> tuple[str, ...]:
    return read(**variables).warnings()


def test_open_mode_is_warned_about_loudly() -> None:
    assert "(this machine)" in _warned()[0]
    assert "everybody who reaches 0.0.0.0" in _warned(GATEWAY_HOST="0.0.0.0")[0]


def test_a_base_url_without_key_and_one_that_leads_back_are_warned_about() -> None:
    assert "ANTHROPIC_BASE_URL: has no effect without ANTHROPIC_API_KEY" in _warned(ANTHROPIC_BASE_URL="https://h")
    lines = _warned(OPENAI_BASE_URL="http://localhost:8080/v1")
    assert "provider openai: http://localhost:8080/v1 looks like this gateway itself" in lines


@pytest.mark.parametrize("variable", ["GATEWAY_JWT_SECRET", "GATEWAY_TENANT_SECRET"])
def test_what_has_no_effect_is_refused(variable: str) -> None:
    (line,) = complaints(**{variable: "a-value-of-some-length"})
    assert line.startswith(f"{variable}: unknown variable")
    assert "a-value" not in line


def test_redis_without_a_number_of_replicas_is_warned_about() -> None:
    shared = {"GATEWAY_STORAGE_URI": "redis://h"}

    assert any(line.startswith("GATEWAY_REPLICAS: not given") for line in _warned(**shared))
    assert not any("GATEWAY_REPLICAS" in line for line in _warned(**shared, GATEWAY_REPLICAS="3"))
    assert not any("GATEWAY_REPLICAS" in line for line in _warned())


def test_secrets_do_not_print_themselves() -> None:
    secret: Any = read().providers[0].api_key
    assert secret.reveal() == MINIMAL["OPENAI_API_KEY"]
    for text in (repr(secret), str(secret), f"{secret}", repr(read())):
        assert MINIMAL["OPENAI_API_KEY"] not in text
    assert secret == Secret(MINIMAL["OPENAI_API_KEY"])
    assert len({secret, Secret(MINIMAL["OPENAI_API_KEY"])}) == 1
    assert secret != MINIMAL["OPENAI_API_KEY"]


def test_the_hash_follows_the_configuration_and_not_the_secrets() -> None:
    start = read().config_hash
    assert len(start) == 12
    assert read(OPENAI_API_KEY="another-secret").config_hash == start
    assert read(GATEWAY_DRAIN_SECONDS="31").config_hash != start
    assert read(GATEWAY_JOURNAL="off").config_hash != start


@pytest.mark.parametrize("name", ["GATEWAY_HOST", "GATEWAY_PORT", "GATEWAY_JOURNAL", "GATEWAY_FLEET_DIRECTORY"])
def test_the_hash_is_the_same_for_servers_that_differ_in_what_is_their_own(name: str, tmp_path: Path) -> None:
    value = {"GATEWAY_HOST": "127.0.0.2", "GATEWAY_PORT": "8081"}.get(name, str(tmp_path / "own"))
    assert read(**{name: value}).config_hash == read().config_hash


@pytest.mark.parametrize(
    "extra",
    [
        {"GATEWAY_DEFAULT_SPEND": "1/day"},
        {"GATEWAY_TENANTS": TENANT % '"spend": "1/day"'},
        {"GATEWAY_TENANTS": TENANT % '"per_key": {"spend": "1/day"}'},
        {"GATEWAY_TENANTS": TENANT % '"per_model": {"gpt-*": {"spend": "1/day"}}'},
        {"GATEWAY_ROUTES": '{"r": {"to": "openai/m", "limits": {"spend": "1/day"}}}'},
    ],
)
def test_whether_any_limit_is_one_of_spend(extra: dict[str, str]) -> None:
    assert read(**extra).limits_spend
    assert not read().limits_spend


def test_workers_without_a_shared_store_are_warned_about() -> None:
    lines = read(GATEWAY_WORKERS="4").warnings()
    assert any("memory:// is not shared between 4 workers" in line for line in lines)
    assert not any("memory://" in line for line in read().warnings())
    assert read(GATEWAY_OPEN="", GATEWAY_TENANTS=TENANT % '"priority": 1').warnings() == ()


def test_an_address_without_its_key_is_warned_about() -> None:
    lines = read(ANTHROPIC_BASE_URL="https://h").warnings()
    assert "ANTHROPIC_BASE_URL: has no effect without ANTHROPIC_API_KEY" in lines


def test_no_provider_and_no_tenant_are_two_complaints() -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({})
    providers, tenants = refused.value.complaints
    assert providers == (
        "GATEWAY_PROVIDERS: no provider: set OPENAI_API_KEY, ANTHROPIC_API_KEY, or AZURE_OPENAI_API_KEY and "
        "AZURE_OPENAI_ENDPOINT (or GATEWAY_PROVIDERS)"
    )
    assert "no tenant: list one with a key" in tenants


def test_the_secret_of_digests_is_read_alone() -> None:
    assert key_secret({}) is None
    assert key_secret({"GATEWAY_KEY_SECRET": "0123456789abcdef", "GATEWAY_PORT": "x"}) == Secret("0123456789abcdef")
    with pytest.raises(SettingsError, match=r"GATEWAY_KEY_SECRET=\[redacted\]: expected at least 16 characters"):
        key_secret({"GATEWAY_KEY_SECRET": "short"})


def test_what_the_hash_cannot_tell_apart_is_refused() -> None:
    odd: Any = object()
    with pytest.raises(NotImplementedError, match="object in the settings tree"):
        _ = Settings(log_format=odd).config_hash


def test_bounds_of_all_bodies_below_that_of_one_are_warned_about() -> None:
    bounds = {"GATEWAY_MAX_BODIES_BYTES": "1000000", "GATEWAY_MAX_TENANT_BODIES_BYTES": "1000000"}
    warnings = " ".join(Settings.from_env({"OPENAI_API_KEY": "x", "GATEWAY_OPEN": "true", **bounds}).warnings())
    assert all(name in warnings for name in bounds)
