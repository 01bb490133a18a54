"""What `check` refuses, `serve` refuses, with the same lines: fifty broken configurations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway_middleware.tenancy.keys import digest

FOREIGN = ("GATEWAY_", "OPENAI_", "ANTHROPIC_", "AZURE_")
GOOD = {
    "OPENAI_API_KEY": "sk-of-nobody",
    "GATEWAY_TENANTS": json.dumps({"acme": {"keys": [digest(b"gw-key")]}}),
    "GATEWAY_JOURNAL": "off",
    "GATEWAY_PORT": "0",
}


def tenant(**more: object) -> str:
    return json.dumps({"acme": {"keys": [digest(b"gw-key")], **more}})


def provider(**more: object) -> str:
    return json.dumps({"x": {"kind": "openai", "base_url": "https://x.test/v1", "api_key": "k", **more}})


BROKEN: list[dict[str, str]] = [
    {"OPENAI_API_KEY": ""},
    {"GATEWAY_TENANTS": ""},
    {"GATEWAY_TENANTS": "{"},
    {"GATEWAY_TENANTS": "[]"},
    {"GATEWAY_TENANTS": tenant(keys=["plain"])},
    {"GATEWAY_TENANTS": tenant(keys=["hmac-sha256:" + "0" * 64])},
    {"GATEWAY_TENANTS": tenant(requests="often")},
    {"GATEWAY_TENANTS": tenant(tokens="1/fortnight")},
    {"GATEWAY_TENANTS": tenant(concurrency=0)},
    {"GATEWAY_TENANTS": tenant(spend="-1/day")},
    {"GATEWAY_TENANTS": tenant(unknown=1)},
    {"GATEWAY_TENANTS": tenant(concurrency=2), "GATEWAY_WORKERS": "4"},
    {"GATEWAY_DEFAULT_REQUESTS": "3/minute", "GATEWAY_WORKERS": "8"},
    {"GATEWAY_ROUTES": '{"a": ["nobody/x"]}'},
    {"GATEWAY_ROUTES": '{"a": []}'},
    {"GATEWAY_ROUTES": '{"a": [{"to": "openai/x", "weight": -1}]}'},
    {"GATEWAY_ROUTES": '{"a": {"to": ["openai/x"], "balance": "fairly"}}'},
    {"GATEWAY_ROUTES": '{"a": {"to": ["openai/x"], "limits": {"requests": "x"}}}'},
    {"GATEWAY_ROUTES": "nonsense"},
    {"GATEWAY_PROVIDERS": provider(kind="bedrock")},
    {"GATEWAY_PROVIDERS": provider(base_url="http://x.test/v1")},
    {"GATEWAY_PROVIDERS": provider(base_url="ftp://x.test")},
    {"GATEWAY_PROVIDERS": provider(base_url="")},
    {"GATEWAY_PROVIDERS": provider(api_key="env:NO_SUCH_VARIABLE")},
    {"GATEWAY_PROVIDERS": provider(api_key="file:/no/such/file")},
    {"GATEWAY_PROVIDERS": provider(timeouts={"connect": 0})},
    {"GATEWAY_PROVIDERS": provider(timeouts={"unknown": 1})},
    {"GATEWAY_PROVIDERS": provider(breaker={"consecutive": 0})},
    {"GATEWAY_PROVIDERS": provider(breaker={"open_base": 100, "open_cap": 10})},
    {"GATEWAY_PROVIDERS": provider(unknown=True)},
    {"GATEWAY_PROVIDERS": '{"a/b": {}}'},
    {"GATEWAY_WORKERS": "0"},
    {"GATEWAY_WORKERS": "many"},
    {"GATEWAY_PORT": "65536"},
    {"GATEWAY_MAX_ATTEMPTS": "0"},
    {"GATEWAY_BREAKER": "maybe"},
    {"GATEWAY_DRAIN_SECONDS": "-1"},
    {"GATEWAY_DRAIN_LAG_SECONDS": "soon"},
    {"GATEWAY_HEAD_SECONDS": "0"},
    {"GATEWAY_HALF_CLOSE": "perhaps"},
    {"GATEWAY_MAX_BODY_BYTES": "0"},
    {"GATEWAY_STORAGE_URI": "mysql://x"},
    {"GATEWAY_STORAGE_URI": "redis://:password@host:notaport"},
    {"GATEWAY_ADMIN_TOKEN": "short"},
    {"GATEWAY_KEY_SECRET": "short"},
    {"GATEWAY_PRICES": '{"openai/x": {"input": -1}}'},
    {"GATEWAY_USAGE_METERING_URL": "nonsense"},
    {"GATEWAY_CONFIG_FILE": "/no/such/file.toml"},
    {"GATEWAY_NO_SUCH_SETTING": "1"},
    {"GATEWAY_JOURNAL": "/no/such/folder/journal.db"},
    {"GATEWAY_JOURNAL": "/usr"},
    {"GATEWAY_TRACING": "sometimes"},
]


def outcome(command: str, changes: dict[str, str], folder: Path) -> tuple[int, str]:
    """Status and lines of complaint."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    done = subprocess.run(
        [sys.executable, "-m", "gateway_middleware", command],
        env={**own, **GOOD, **changes}, capture_output=True, text=True, timeout=60, cwd=folder, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_there_are_fifty() -> None:
    assert len(BROKEN) >= 50


@pytest.mark.parametrize("first", range(0, len(BROKEN), 13))
def test_check_and_serve_refuse_the_same_with_the_same_words(first: int, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        batch = BROKEN[first : first + 13]
        checks = [pool.submit(outcome, "check", changes, tmp_path) for changes in batch]
        serves = [pool.submit(outcome, "serve", changes, tmp_path) for changes in batch]
        for changes, check, serve in zip(batch, checks, serves, strict=True):
            assert check.result() == serve.result(), changes
            status, words = check.result()
            assert status == 1, changes
            assert "Traceback" not in words
            assert words.strip()
            assert "password" not in words
