"""The command line, run as a user runs it: `python -m gateway_middleware`."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gateway_middleware.__main__ import main
from gateway_middleware._version import __version__
from gateway_middleware.commands.check import describe
from gateway_middleware.commands.summary import places
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.settings import Secret, Settings, key_secret
from gateway_middleware.settings.table import BEGIN, END, render_table
from gateway_middleware.tenancy.keys import digest, hmac_digest, public_id

KEY = "sk-canary-0123456789abcdef"
DIGEST = digest(b"a tenant's key")


DEADLINES = (
    "connect 5 s, first byte 60 s, first content 600 s, answer 600 s, idle 60 s, content idle 300 s, total 1800 s, "
    "write stall 60 s, heartbeat 15 s"
)
TIMEOUTS = f"    timeouts: {DEADLINES}"


def run(*arguments: str, stdin: str = "", environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    bare = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "gateway_middleware", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=bare | (environ or {}),
    )


CONFIGURED = {
    "OPENAI_API_KEY": KEY,
    "AZURE_EU_KEY": "z-canary-0123456789",
    "GATEWAY_PROVIDERS": json.dumps(
        {
            "azure-eu": {
                "kind": "azure_openai",
                "base_url": "https://eu.openai.azure.com/",
                "api_key": "env:AZURE_EU_KEY",
                "api_version": "2024-10-21",
                "timeouts": {"connect": 2.5},
                "breaker": {"consecutive": 3},
            }
        }
    ),
    "GATEWAY_ROUTES": '{"fast": ["openai/gpt-5-mini", {"to": "azure-eu/gpt5mini", "weight": 3}]}',
    "GATEWAY_TENANTS": json.dumps({"acme": {"keys": [DIGEST], "requests": "600/minute", "models": ["gpt-*"]}}),
    "GATEWAY_PORT": "9000",
    "GATEWAY_WORKERS": "2",
}


def test_check_says_what_it_would_run() -> None:
    done = run("check", environ=CONFIGURED)
    settings = Settings.from_env(CONFIGURED)
    openai, azure = (p.api_key.fingerprint for p in settings.providers)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "providers",
        f"  openai: openai at https://api.openai.com/v1, key OPENAI_API_KEY (fingerprint {openai})",
        TIMEOUTS,
        (
            "  azure-eu: azure_openai at https://eu.openai.azure.com api-version 2024-10-21, "
            f"key env:AZURE_EU_KEY (fingerprint {azure})"
        ),
        TIMEOUTS.replace("connect 5 s", "connect 2.5 s"),
        "circuit breakers",
        "  openai: opens after 5 failures in a row or 50% of 10 or more calls in 60 s, for 10 to 300 s",
        "  azure-eu: opens after 3 failures in a row or 50% of 10 or more calls in 60 s, for 10 to 300 s",
        "routes",
        "  fast -> openai/gpt-5-mini, azure-eu/gpt5mini (weight 3)",
        "  provider/model and plain model names resolve by provider",
        "tenants",
        "  acme: 1 key; requests 600/minute; models gpt-*",
        *places(settings),
        "serve would listen on http://127.0.0.1:9000 with 2 workers",
        f"configuration {settings.config_hash}",
        (
            "warning: GATEWAY_STORAGE_URI: memory:// is not shared between 2 workers: each enforces one part in 2 of "
            "every limit, and learns alone of failing providers; redis:// is exact"
        ),
    ]
    assert done.returncode == 0
    assert "canary" not in done.stdout


def test_check_says_that_everybody_is_let_in() -> None:
    environ = {"OPENAI_API_KEY": KEY, "GATEWAY_OPEN": "true", "GATEWAY_HOST": "::"}
    lines = list(describe(Settings.from_env(environ), {}))
    assert lines[lines.index("tenants") :] == [
        "tenants",
        "  everybody: GATEWAY_OPEN",
        *places(Settings.from_env(environ)),
        "serve would listen on http://[::]:8080 with 1 worker",
        f"configuration {Settings.from_env(environ).config_hash}",
        (
            "warning: GATEWAY_OPEN: every caller is let in without a key, at the cost of your provider keys "
            "(everybody who reaches ::)"
        ),
    ]


def test_check_counts_keys_and_names_limits() -> None:
    tenant = {"keys": [DIGEST, digest(b"2")], "concurrency": 5, "spend": "1/day"}
    environ = {"OPENAI_API_KEY": KEY, "GATEWAY_TENANTS": json.dumps({"acme": tenant})}
    assert "  acme: 2 keys; concurrency 5; spend 1/day; models *" in describe(Settings.from_env(environ), {})


def test_check_says_every_fault_on_a_line_and_fails() -> None:
    done = run(
        "check",
        environ={
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": "http://api.example/v1",
            "GATEWAY_PROVIDERS": '{"p": {"kind": "openai", "api_key": "env:ABSENT"}}',
            "GATEWAY_ROUTES": '{"r": ["openai/a", "openai/a"]}',
            "GATEWAY_TENANT": "{}",
            "GATEWAY_OPEN": "true",
        },
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "GATEWAY_TENANT: unknown variable; did you mean 'GATEWAY_TENANTS'?",
        (
            "OPENAI_BASE_URL='http://api.example/v1': expected https: plain http only to loopback, or with "
            '"insecure": true in GATEWAY_PROVIDERS'
        ),
        "GATEWAY_PROVIDERS.p.api_key=env:ABSENT: this variable is not set",
        "GATEWAY_ROUTES.r: deployment openai/a stands there 2 times; expected once",
    ]


def test_a_new_key_opens_with_what_is_printed_beside_it() -> None:
    done = run("keys", "new", "--tenant", "o-neil")
    key_line, digest_line, variable = done.stdout.splitlines()
    key = key_line.removeprefix("key").strip()
    assert public_id(key) is not None
    assert digest_line.split() == ["digest", digest(key.encode())]
    command, assignment = shlex.split(variable)
    name, _, value = assignment.partition("=")
    assert command == "export"
    (tenant,) = Settings.from_env({name: value, "OPENAI_API_KEY": KEY}).tenants
    assert (tenant.name, tuple(key.digest for key in tenant.keys)) == ("o-neil", (digest(key.encode()),))
    assert done.returncode == 0


def test_a_key_is_hashed_from_standard_input() -> None:
    done = run("keys", "hash", stdin="any string\n")
    assert done.stdout == digest(b"any string") + "\n"
    assert run("keys", "hash").returncode == 1
    assert run("keys", "hash").stderr == "standard input: empty; expected a key\n"


def test_keys_under_a_secret() -> None:
    environ = {"GATEWAY_KEY_SECRET": "0123456789abcdef"}
    done = run("keys", "hash", "--hmac", stdin="k", environ=environ)
    assert done.stdout == hmac_digest(b"k", b"0123456789abcdef") + "\n"
    assert run("keys", "new", "--hmac").stderr == "GATEWAY_KEY_SECRET: not set; expected a secret for --hmac\n"
    short = run("keys", "new", "--hmac", environ={"GATEWAY_KEY_SECRET": "short"})
    assert short.stderr == "GATEWAY_KEY_SECRET=[redacted]: expected at least 16 characters\n"


def test_the_secret_is_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert key_secret({}) is None
    assert key_secret({"GATEWAY_KEY_SECRET": "env:HELD", "HELD": "0123456789abcdef", "GATEWAY_PORT": "x"}) == Secret(
        "0123456789abcdef"
    )
    monkeypatch.setenv("GATEWAY_KEY_SECRET", "short")
    with pytest.raises(SettingsError):
        key_secret()


def test_the_settings_table_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings-table"]) == 0
    assert capsys.readouterr().out == render_table()
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    assert main(["settings-table", "--write", str(readme)]) == 0
    assert readme.read_text() == f"before\n{BEGIN}\n{render_table()}{END}\nafter\n"
    assert main(["settings-table", "--write", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["nope"], ["check", "--nope"], ["keys"], ["keys", "hash", "a-key"]])
def test_misuse_is_refused_with_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: model-gateway")


def test_version_and_help_name_everything(capsys: pytest.CaptureFixture[str]) -> None:
    for argument in ("--version", "--help"):
        with pytest.raises(SystemExit) as caught:
            main([argument])
        assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert __version__ in shown
    assert all(command in shown for command in ("serve", "demo", "check", "keys"))


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        # `check` puts the gateway together as `serve` does, but needs no server and reads no TOML that is not there.
        ("main(['check'])", {"uvicorn", "uvloop", "tomllib", "difflib"}),
        ("main(['keys', 'new', '--tenant', 'acme'])", {"starlette", "httpx", "limits", "uvicorn", "uvloop"}),
        ("import gateway_middleware.simulator", {"starlette", "httpx", "limits", "uvicorn", "uvloop"}),
    ],
    ids=["check", "keys", "simulator"],
)
def test_what_does_not_serve_imports_no_server(code: str, unwanted: set[str]) -> None:
    script = (
        f"import sys; from gateway_middleware.__main__ import main; {code}; "
        f"print({unwanted} & sys.modules.keys() or 'nothing')"
    )
    inherited = {name: os.environ.get(name, "") for name in ("PATH", "PYTHONPATH")}
    environ = inherited | {"OPENAI_API_KEY": KEY, "GATEWAY_OPEN": "true"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environ)
    assert done.stdout.splitlines()[-1] == "nothing"


def test_whose_credentials_calls_carry() -> None:
    two = {"kind": "openai", "api_key": ["env:KEY_A", {"key": "env:KEY_B", "weight": 3, "name": "batch"}]}
    claude = {"kind": "anthropic", "auth": "none", "labels": {"region": "us"}}
    acme = {"keys": ["sha256:" + "0" * 64], "credentials": {"two": "env:KEY_C", "claude": "client"}}
    settings = Settings.from_env({
        "GATEWAY_PROVIDERS": json.dumps({"two": two, "claude": claude}),
        "GATEWAY_TENANTS": json.dumps({"acme": {**acme, "require": {"region": "us"}}}),
        "KEY_A": "sk-a-0123456789", "KEY_B": "sk-b-0123456789", "KEY_C": "sk-c-0123456789",
    })  # fmt: skip
    lines = list(describe(settings))
    one, other = (key.secret.fingerprint for key in settings.providers[0].keys)
    own = settings.tenants[0].credentials[0][1].fingerprint
    assert (
        "  two: openai at https://api.openai.com/v1, "
        f"key-1 env:KEY_A (fingerprint {one}) weight 1, batch env:KEY_B (fingerprint {other}) weight 3"
    ) in lines
    tenant = lines.index("    credential at two: the tenant's own key env:KEY_C (fingerprint " + own + ")")
    assert lines[tenant + 1] == "    credential at claude: the caller's own, sent beside x-gateway-key"
    assert "warning: tenant acme: its credential at two is never sent: two has not the labels it requires" in lines
    assert not any("credential at claude is never sent" in line for line in lines)


def test_callers_without_a_key_of_the_gateway() -> None:
    settings = Settings.from_env({
        "ANTHROPIC_API_KEY": "sk-0123456789", "GATEWAY_JWT_ISSUER": "https://issuer.test", "GATEWAY_JWT_AUDIENCE": "us",
        "GATEWAY_TENANTS": json.dumps({"acme": {"credentials": "client"}}),
    })  # fmt: skip
    assert any("beside x-gateway-key, and it has no keys" in line for line in describe(settings))
