"""Providers: the three built-in ones, those of `GATEWAY_PROVIDERS`, and where secrets come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway_middleware.core.domain import Timeouts
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.core.provider_api import Auth, Proxy
from gateway_middleware.core.secret import Secret
from gateway_middleware.providers import KINDS
from gateway_middleware.settings import ProviderSettings, Settings

OPEN = {"GATEWAY_OPEN": "true"}
P = "GATEWAY_PROVIDERS.p"


def providers(**variables: str) -> dict[str, ProviderSettings]:
    return {p.name: p for p in Settings.from_env(OPEN | variables).providers}


def complaints(**variables: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(OPEN | variables)
    return caught.value.complaints


def entry(**members: Any) -> str:
    return json.dumps({"p": {"kind": "openai", "api_key": "sk-0123456789"} | members})


def test_each_vendor_key_switches_its_provider_on() -> None:
    found = providers(
        OPENAI_API_KEY="o-key-1",
        ANTHROPIC_API_KEY="a-key-1",
        ANTHROPIC_BASE_URL="https://anthropic.example/",
        AZURE_OPENAI_API_KEY="z-key-1",
        AZURE_OPENAI_ENDPOINT="https://res.openai.azure.com/",
        OPENAI_API_VERSION="2025-04-01-preview",
    )
    assert [(p.name, p.kind, p.base_url, p.api_version, p.api_key.reveal()) for p in found.values()] == [
        ("openai", "openai", "https://api.openai.com/v1", None, "o-key-1"),
        ("anthropic", "anthropic", "https://anthropic.example", None, "a-key-1"),
        ("azure", "azure_openai", "https://res.openai.azure.com", "2025-04-01-preview", "z-key-1"),
    ]


def test_an_entry_has_every_option() -> None:
    found = providers(
        GATEWAY_PROVIDERS=entry(
            base_url="http://vllm.internal:8000/v1",
            insecure=True,
            timeouts={"connect": 1, "first_byte": 2.5},
            organization="org-1",
            project="proj-1",
            stream_options=False,
            on_disconnect="drain",
        )
    )["p"]
    assert found.timeouts == Timeouts(connect=1.0, first_byte=2.5)
    assert (found.organization, found.project, found.is_insecure) == ("org-1", "proj-1", True)
    assert (found.stream_options, found.reads_on_disconnect) == (False, True)
    assert found.base_url == "http://vllm.internal:8000/v1"


def test_an_entry_replaces_the_built_in_of_its_name() -> None:
    listed = json.dumps({"openai": {"kind": "openai", "api_key": "env:OPENAI_API_KEY", "timeouts": {"idle": 9}}})
    found = providers(OPENAI_API_KEY="sk-0123456789", OPENAI_BASE_URL="not read", GATEWAY_PROVIDERS=listed)
    assert list(found) == ["openai"]
    assert found["openai"].timeouts.idle == 9.0
    assert found["openai"].api_key.reveal() == "sk-0123456789"


@pytest.mark.parametrize(
    "url",
    ["http://localhost:1/v1", "http://LOCALHOST", "http://127.0.0.1:9", "http://127.8.7.6", "http://[::1]:80/v1"],
)
def test_plain_http_may_stay_on_this_machine(url: str) -> None:
    assert providers(GATEWAY_PROVIDERS=entry(base_url=url))["p"].base_url == url


@pytest.mark.parametrize(
    "url", ["http://vllm", "http://10.0.0.1", "http://localhost.evil", "http://127.1", "http://[::2]"]
)
def test_plain_http_to_elsewhere_is_refused(url: str) -> None:
    why = 'expected https: plain http only to loopback, or with "insecure": true in GATEWAY_PROVIDERS'
    assert complaints(GATEWAY_PROVIDERS=entry(base_url=url)) == (f"{P}.base_url={url!r}: {why}",)
    assert complaints(OPENAI_API_KEY="k", OPENAI_BASE_URL=url) == (f"OPENAI_BASE_URL={url!r}: {why}",)


def test_plain_http_that_was_asked_for_is_warned_about() -> None:
    settings = Settings.from_env(OPEN | {"GATEWAY_PROVIDERS": entry(base_url="http://vllm", insecure=True)})
    assert "provider p: key and prompts travel unencrypted to http://vllm" in settings.warnings()


def without(name: str, **members: Any) -> str:
    whole = {"kind": "openai", "api_key": "sk-0123456789", "base_url": "https://h"} | members
    return json.dumps({"p": {key: value for key, value in whole.items() if key != name}})


_SECONDS = "expected seconds: a number above 0, at most 86400"


@pytest.mark.parametrize(
    ("listed", "line"),
    [
        (
            "{",
            (
                "GATEWAY_PROVIDERS=[redacted]: expected a JSON object: Expecting property name enclosed in double "
                "quotes: line 1 column 2 (char 1)"
            ),
        ),
        ("[]", "GATEWAY_PROVIDERS=[...]: expected an object"),
        ('{"p": 1}', f"{P}=1: expected an object"),
        ('{"p": {}, "p": {}}', "GATEWAY_PROVIDERS=[redacted]: expected a JSON object: the name p stands twice"),
        ('{"p": NaN}', "GATEWAY_PROVIDERS=[redacted]: expected a JSON object: NaN is not a number"),
        ("[" * 100_000, "GATEWAY_PROVIDERS=[redacted]: expected a JSON object, got one that is too deep"),
        (entry(kind="gemini"), f"{P}.kind='gemini': expected one of openai, anthropic, azure_openai"),
        (without("kind"), f"{P}.kind: missing: expected one of openai, anthropic, azure_openai"),
        (without("api_key"), f"{P}.api_key: missing: expected the API key, as env:NAME or file:/path"),
        (
            without("base_url", kind="azure_openai"),
            f"{P}.base_url: missing: expected the endpoint, https://NAME.openai.azure.com",
        ),
        (entry(apikey="x"), f"{P}.apikey: unknown name; did you mean 'api_key'?"),
        (
            entry(zzz="x"),
            (
                f"{P}.zzz: unknown name; expected one of kind, base_url, api_key, api_version, timeouts, insecure, "
                "organization, project, breaker, on_disconnect, stream_options, ca_file, proxy, stateless, surfaces, "
                "auth, headers, labels, entra, aws"
            ),
        ),
        (entry(api_key=7), f"{P}.api_key=[redacted]: expected text, env:NAME or file:/path"),
        (entry(insecure="perhaps"), f"{P}.insecure='perhaps': expected true or false"),
        (entry(timeouts={"connect": 0}), f"{P}.timeouts.connect=0: {_SECONDS}"),
        (entry(timeouts={"idle": -1.5}), f"{P}.timeouts.idle=-1.5: {_SECONDS}"),
        (entry(timeouts={"idle": True}), f"{P}.timeouts.idle=true: {_SECONDS}"),
        (entry(timeouts={"idle": None}), f"{P}.timeouts.idle=null: {_SECONDS}"),
        (entry(timeouts={"idle": 10**40}), f"{P}.timeouts.idle=<int>: {_SECONDS}"),
        (entry(timeouts={"conect": 1}), f"{P}.timeouts.conect: unknown name; did you mean 'connect'?"),
        (entry(timeouts=5), f"{P}.timeouts=5: expected an object"),
        (entry(organization="a\nb"), f"{P}.organization='a\\nb': expected printable ASCII without spaces"),
        (
            entry(kind="anthropic", project="p"),
            f"{P}.project='p': expected only with kind openai",
        ),
        (entry(api_version="v1"), f"{P}.api_version='v1': expected only with kind anthropic or azure_openai"),
        (
            entry(kind="anthropic", api_version="2023&x=1"),
            f"{P}.api_version='2023&x=1': expected an API version such as 2025-04-01-preview",
        ),
        (
            json.dumps({"a/b": {"kind": "openai", "api_key": "k"}}),
            "GATEWAY_PROVIDERS.a/b: expected a provider name of letters, digits and . _ - (at most 64)",
        ),
        (
            json.dumps({"a\nb": {"kind": "openai", "api_key": "k"}}),
            "GATEWAY_PROVIDERS.'a\\nb': expected a provider name of letters, digits and . _ - (at most 64)",
        ),
    ],
)
def test_bad_entries(listed: str, line: str) -> None:
    assert complaints(GATEWAY_PROVIDERS=listed) == (line,)


def test_half_an_azure_names_the_other_half() -> None:
    assert complaints(AZURE_OPENAI_API_KEY="k") == (
        "AZURE_OPENAI_ENDPOINT: missing: AZURE_OPENAI_API_KEY needs it, https://NAME.openai.azure.com",
    )


def test_an_empty_object_is_no_provider() -> None:
    assert complaints(GATEWAY_PROVIDERS="{}", GATEWAY_PORT="x")[-1].startswith("GATEWAY_PROVIDERS: no provider: ")


def test_secrets_are_followed_to_variables_and_files(tmp_path: Path) -> None:
    mounted = tmp_path / "openai"
    mounted.write_text("sk-from-file\n")
    found = providers(
        OPENAI_API_KEY=f"file:{mounted}", GATEWAY_PROVIDERS=entry(api_key="env:P_KEY"), P_KEY="sk-from-env\r\n"
    )
    assert found["openai"].api_key.reveal() == "sk-from-file"
    assert found["openai"].api_key.source == f"file:{mounted}"
    assert found["p"].api_key.reveal() == "sk-from-env"
    assert found["p"].api_key.source == "env:P_KEY"


def test_references_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_text("x" * 70_000)
    (tmp_path / "spaced").write_text("two words")
    for reference, why in [
        ("env:P_KEY", "=env:P_KEY: this variable is not set"),
        ("env:sk-pasted-by-mistake", "=[redacted]: this variable is not set"),
        (f"file:{tmp_path}/none", f"=file:{tmp_path}/none: expected a file that can be read"),
        (f"file:{tmp_path}", f"=file:{tmp_path}: expected a file that can be read"),
        ("file:/dev/zero", "=file:/dev/zero: expected a file that can be read"),
        ("file:a\x00b", "=[redacted]: expected a file that can be read"),
        (f"file:{tmp_path}/empty", f"=file:{tmp_path}/empty: this file is empty"),
        (f"file:{tmp_path}/binary", f"=file:{tmp_path}/binary: expected a file that can be read (UnicodeDecodeError)"),
        (f"file:{tmp_path}/large", f"=file:{tmp_path}/large: expected a file of at most 65536 bytes"),
        (
            f"file:{tmp_path}/spaced",
            f"=file:{tmp_path}/spaced: expected printable ASCII without spaces or line ends",
        ),
    ]:
        (line,) = complaints(GATEWAY_PROVIDERS=entry(api_key=reference))
        assert line.startswith(f"{P}.api_key{why}")


def test_a_secret_in_the_wrong_place_is_struck_out() -> None:
    key = "sk-canary-0123456789"
    lines = complaints(OPENAI_API_KEY=key, OPENAI_BASE_URL=f"https://h/{key}//", GATEWAY_ROUTES=json.dumps({key: key}))
    assert lines
    assert all("canary" not in line for line in lines)


def _reaching(**options: Any) -> Any:
    entry = {"kind": "openai", "api_key": "env:KEY", **options}
    return {"GATEWAY_PROVIDERS": json.dumps({"own": entry}), "KEY": "sk-of-some-length", "GATEWAY_OPEN": "true"}


def test_a_provider_behind_a_proxy_and_an_authority_of_its_own(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(bundle)
    proxy = {"url": "http://proxy.test:3128", "credentials": "env:PROXY"}

    environment = {**_reaching(ca_file=str(bundle), proxy=proxy), "PROXY": "user:pass-word"}
    settings = Settings.from_env(environment)

    (own,) = settings.providers
    assert own.ca_file == str(bundle)
    assert own.proxy == Proxy(host="proxy.test", port=3128, credentials=Secret("user:pass-word"))
    assert settings.config_hash == Settings.from_env({**environment, "PROXY": "user:other"}).config_hash
    assert "pass-word" not in repr(settings)
    provider = KINDS["openai"](own)
    assert provider.origin.proxy == own.proxy
    assert {"user:pass-word", "pass-word"} < set(provider.secrets)


def test_a_proxy_without_credentials_is_its_address() -> None:
    (own,) = Settings.from_env(_reaching(proxy="http://10.0.0.1")).providers

    assert own.proxy == Proxy(host="10.0.0.1", port=80)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ca_file": "/nowhere.pem"}, "No such file"),
        ({"ca_file": __file__}, "no certificate is in it"),
        ({"ca_file": 5}, "expected the path"),
        ({"proxy": "https://proxy.test"}, "expected http://host[:port] of a proxy"),
        ({"proxy": "http://proxy.test/path"}, "expected http://host[:port] of a proxy"),
        ({"proxy": "socks5://proxy.test"}, "expected http(s)://host"),
        ({"proxy": "http://user:hidden-word@proxy.test"}, "without user"),
        ({"proxy": {"credentials": "env:PROXY"}}, "missing: expected http://host"),
        ({"proxy": {"url": "http://p.test", "credentials": "env:PROXY"}}, "expected user:password"),
        ({"proxy": {"url": "http://p.test", "user": "x"}}, "unknown name"),
        ({"proxy": 5}, "expected an object"),
    ],
)
def test_ways_that_lead_nowhere(options: Any, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({**_reaching(**options), "PROXY": "no-colon-in-here"})

    assert says in str(caught.value)
    assert "hidden-word" not in str(caught.value)
    assert "no-colon-in-here" not in str(caught.value)


def test_a_provider_without_a_key_says_so() -> None:
    local = '{"local": {"kind": "openai", "base_url": "http://127.0.0.1:11434/v1", "auth": "none"}}'
    (found,) = providers(GATEWAY_PROVIDERS=local).values()

    assert (found.auth, found.api_key.reveal()) == (Auth.NONE, "")


def test_headers_of_every_call() -> None:
    headers = {"X-Title": "Our app", "CF-Access-Token": "env:CF"}
    (found,) = providers(GATEWAY_PROVIDERS=entry(base_url="https://h/v1", headers=headers), CF="hush-hush").values()

    assert [(name, value.reveal(), value.source) for name, value in found.headers] == [
        ("x-title", "Our app", f"{P}.headers.X-Title"),
        ("cf-access-token", "hush-hush", "env:CF"),
    ]


OWN = ["Host", "content-length", "Transfer-Encoding", "connection", "Authorization", "x-api-key", "API-Key", "cookie"]
OWN += ["TE", "trailer", "Upgrade", "keep-alive", "expect", "Content-Encoding", "X-Amz-Date", "x-amz-security-token"]


@pytest.mark.parametrize("name", [*OWN, "proxy-authorization", "x-gateway-tenant", "user-agent", "a b", "", "x\r\ny"])
def test_headers_that_are_the_gateways_own_or_none(name: str) -> None:
    faults = complaints(GATEWAY_PROVIDERS=entry(base_url="https://h/v1", headers={name: "hush-hush"}))

    assert faults
    assert "hush-hush" not in str(faults)


@pytest.mark.parametrize("value", ["", " x", "x\r\ny: z", "\u00e9", 5, None, "env:NOT_SET"])
def test_values_that_no_header_has(value: object) -> None:
    assert complaints(GATEWAY_PROVIDERS=entry(base_url="https://h/v1", headers={"x-a": value}))


def test_a_form_of_credential_that_there_is_not() -> None:
    (fault,) = complaints(GATEWAY_PROVIDERS=entry(base_url="https://h/v1", auth="basic"))

    assert "bearer, x-api-key, api-key, sigv4, none" in fault
