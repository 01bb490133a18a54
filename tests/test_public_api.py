"""What the package offers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from limits.storage import MemoryStorage as BlockingStorage

import gateway_middleware

ROOT = Path(__file__).parents[1]


def test_all_is_sorted_and_there() -> None:
    assert gateway_middleware.__all__ == sorted(gateway_middleware.__all__)
    assert all(hasattr(gateway_middleware, name) for name in gateway_middleware.__all__)


def outside(program: str) -> str:
    """What a program prints that knows nothing but the installed package."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_no_framework() -> None:
    program = (
        "import sys, gateway_middleware\n"
        "heavy = {'starlette', 'httpx', 'uvicorn', 'uvloop', 'limits', 'prometheus_client', 'msgspec'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    assert outside(program) == "[]\n"


def test_every_name_is_imported_alone() -> None:
    for name in gateway_middleware.__all__:
        assert outside(f"from gateway_middleware import {name}; print({name!r})") == f"{name}\n"


def test_policies_alone_need_no_web_framework() -> None:
    names = "BreakerPolicy, Credential, GatewayError, RateLimitedError, Settings, Tenant, TenantMiddleware"
    program = (
        f"import sys; from gateway_middleware import {names}; print({{'starlette', 'uvicorn'}} & sys.modules.keys())"
    )
    assert outside(program) == "set()\n"


def test_a_name_that_is_not_public_is_an_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Engine'"):
        _ = gateway_middleware.Engine


def test_what_is_offered_to_readers_is_offered_to_type_checkers() -> None:
    source = (ROOT / "src" / "gateway_middleware" / "__init__.py").read_text()
    imported = source.partition("if TYPE_CHECKING:\n")[2].partition("\n\n")[0]
    names = {name.strip() for line in imported.splitlines() for name in line.partition(" import ")[2].split(",")}
    assert {*names, "__version__"} == set(gateway_middleware.__all__)
    assert set(gateway_middleware.__all__) <= set(dir(gateway_middleware))


def test_importing_reads_no_environment_and_starts_nothing() -> None:
    program = (
        "import os, threading, sys\n"
        "os.environ.clear()\n"
        "import gateway_middleware\n"
        "from gateway_middleware import Gateway\n"
        "assert threading.active_count() == 1\n"
        "assert 'uvicorn' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_changelog_begins_with_this_version() -> None:
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## [")]

    assert headings[0].startswith(f"## [{gateway_middleware.__version__}]")


def test_no_layer_subclasses_base_http_middleware() -> None:
    found = [path for path in (ROOT / "src").rglob("*.py") if "BaseHTTPMiddleware" in path.read_text()]

    assert found == []


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """Not called."""


OPEN = gateway_middleware.Settings.from_env({"GATEWAY_OPEN": "true", "OPENAI_API_KEY": "x", "GATEWAY_JOURNAL": "off"})
LAYERS: dict[str, Callable[[], Any]] = {
    "RateLimitMiddleware": lambda: gateway_middleware.RateLimitMiddleware(_app, key=str, limits="1/minute"),
    "CircuitBreakerMiddleware": lambda: gateway_middleware.CircuitBreakerMiddleware(_app, key=str),
    "UsageMiddleware": lambda: gateway_middleware.UsageMiddleware(
        _app, journal=gateway_middleware.Journal(Path("unused.db")), tenant_of=str
    ),
    "TenantMiddleware": lambda: gateway_middleware.TenantMiddleware(_app, resolver=lambda _, __: None),
    "Gateway": lambda: gateway_middleware.Gateway(OPEN),
    "create_app": lambda: gateway_middleware.create_app(OPEN),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_server_sees_that_each_layer_is_an_application(name: str) -> None:
    """uvicorn takes an object for one of ASGI 3 only if its `__call__` is a coroutine function."""
    config = uvicorn.Config(LAYERS[name](), log_config=None)
    config.load()
    assert config.interface == "asgi3"


@pytest.mark.parametrize(
    "build",
    [
        lambda: gateway_middleware.CircuitBreakerMiddleware(_app, key=cast("Any", None)),
        lambda: gateway_middleware.UsageMiddleware(_app, journal=cast("Any", None), tenant_of=str),
        lambda: gateway_middleware.UsageMiddleware(
            _app, journal=gateway_middleware.Journal(Path("unused.db")), tenant_of=cast("Any", "acme")
        ),
        lambda: gateway_middleware.TenantMiddleware(_app, resolver=cast("Any", None)),
        lambda: gateway_middleware.Limiter("1/minute", storage=cast("Any", BlockingStorage())),
    ],
)
def test_an_argument_that_is_none_is_found_when_the_application_is_built(build: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match="expected"):
        build()
