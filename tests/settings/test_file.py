"""`GATEWAY_CONFIG_FILE`: the same tree in TOML, below the environment."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gateway_middleware.core.errors import SettingsError
from gateway_middleware.settings import Settings
from gateway_middleware.tenancy.keys import digest

WHOLE = f"""
openai_api_key = "env:REAL_KEY"
port = 9000
open = false
default_requests = "600/minute"

[providers.eu]
kind = "anthropic"
api_key = "env:REAL_KEY"
timeouts = {{ idle = 5.5 }}

[routes]
fast = ["openai/gpt-5", {{ to = "eu/claude", weight = 3 }}]

[tenants.acme]
keys = ["{digest(b"one")}"]
"""
ENVIRON = {"REAL_KEY": "sk-0123456789"}


def read(path: Path, text: str | bytes, **variables: str) -> Settings:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return Settings.from_env(ENVIRON | {"GATEWAY_CONFIG_FILE": str(path)} | variables)


def complaints(path: Path, text: str | bytes) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        read(path, text, OPENAI_API_KEY="k", GATEWAY_OPEN="1")
    return caught.value.complaints


def test_the_file_holds_everything(tmp_path: Path) -> None:
    settings = read(tmp_path / "gateway.toml", WHOLE)
    assert [p.name for p in settings.providers] == ["openai", "eu"]
    assert settings.providers[1].timeouts.idle == 5.5
    assert [d.deployment.key for d in settings.routes[0].deployments] == ["openai/gpt-5", "eu/claude"]
    assert (settings.port, settings.is_open, settings.default_requests) == (9000, False, "600/minute")
    assert settings.tenants[0].name == "acme"


def test_the_environment_wins_variable_by_variable(tmp_path: Path) -> None:
    settings = read(tmp_path / "gateway.toml", WHOLE, GATEWAY_PORT="9001", GATEWAY_ROUTES='{"one": "eu/claude"}')
    assert settings.port == 9001
    assert [route.name for route in settings.routes] == ["one"]
    assert settings.tenants[0].name == "acme"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("prot = 1", "FILE:prot: unknown key; did you mean 'port'?"),
        ('config_file = "x"', "FILE:config_file: unknown key"),
        ('"a\\nb" = "x"', "FILE:'a\\nb': unknown key"),
        ('port = "x"', "FILE:port='x': expected an integer from 0 to 65535"),
        ("port = true", "FILE:port=true: expected an integer from 0 to 65535"),
        ("port = 1979-05-27", "FILE:port=<date>: expected an integer from 0 to 65535"),
        ("drain_seconds = inf", "FILE:drain_seconds=inf: expected seconds: a number above 0, at most 86400"),
        ("routes = 5", "FILE:routes=5: expected an object"),
        (
            '[routes]\na = "nobody/x"',
            "FILE:routes.a='nobody/x': expected a configured provider before the slash, one of openai",
        ),
        ("admin_token = 5", "FILE:admin_token=[redacted]: expected text, env:NAME or file:/path"),
        ('jwt_secret = "i"', "FILE:jwt_secret: unknown key; did you mean 'key_secret'?"),
        ("port =", "GATEWAY_CONFIG_FILE='FILE': expected TOML: Invalid value (at end of document)"),
        (b"\xff", "GATEWAY_CONFIG_FILE='FILE': expected a TOML file that can be read (UnicodeDecodeError)"),
        ("a = " + "[" * 100_000, "GATEWAY_CONFIG_FILE='FILE': expected TOML, got one that is too deep"),
    ],
)
def test_bad_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | bytes, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert complaints(Path("FILE"), text) == (line,)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"OPENAI_API_KEY": "k", "GATEWAY_OPEN": "1", "GATEWAY_CONFIG_FILE": "/none.toml"})
    assert caught.value.complaints == (
        "GATEWAY_CONFIG_FILE='/none.toml': expected a TOML file that can be read (FileNotFoundError)",
    )


@pytest.mark.parametrize("name", ["pipe", "folder", "/dev/zero"])
def test_what_is_no_regular_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("folder").mkdir()
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"OPENAI_API_KEY": "k", "GATEWAY_OPEN": "1", "GATEWAY_CONFIG_FILE": name})
    assert caught.value.complaints == (f"GATEWAY_CONFIG_FILE={name!r}: expected a TOML file, got something else",)


class Parser:
    """A stand-in for tomli, which has the same face as Python's own parser."""

    TOMLDecodeError = tomllib.TOMLDecodeError

    def __init__(self) -> None:
        self.texts: list[str] = []

    def loads(self, text: str) -> dict[str, Any]:
        self.texts.append(text)
        return tomllib.loads(text)


def test_tomli_reads_the_file_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tomli = Parser()
    monkeypatch.setitem(sys.modules, "tomli", tomli)  # what is imported need not be a module
    assert read(tmp_path / "gateway.toml", WHOLE).port == 9000
    assert tomli.texts == [WHOLE]


def test_python_reads_the_file_where_it_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tomli", None)
    assert read(tmp_path / "gateway.toml", WHOLE).port == 9000
