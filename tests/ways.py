"""Which way providers are reached and which server answers, for a whole run of tests: `--transport`, `--server`.

Every test runs on the gateway's own engine and its own HTTP protocol unless the run says otherwise. What is promised
for those alone is marked `own_engine` or `own_server`, with the reason: such a test is skipped, and says why.
"""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from gateway_middleware import Gateway, Settings

TRANSPORTS = ("engine", "httpx")
SERVERS = ("own", "uvicorn")


class Ways:
    """What this run was started with."""

    transport = "engine"
    server = "own"


def add_options(parser: pytest.Parser) -> None:
    parser.addoption("--transport", choices=TRANSPORTS, default="engine", help="how providers are reached")
    parser.addoption("--server", choices=SERVERS, default="own", help="who serves the gateway inside a test")


def choose(config: pytest.Config) -> None:
    Ways.transport, Ways.server = config.getoption("--transport"), config.getoption("--server")
    config.addinivalue_line("markers", "own_engine(reason): promised of the gateway's own engine only")
    config.addinivalue_line("markers", "own_server(reason): promised of the gateway's own HTTP protocol only")


def skip_what_is_not_promised(items: list[pytest.Item]) -> None:
    for item in items:
        for name, is_other in (("own_engine", Ways.transport == "httpx"), ("own_server", Ways.server == "uvicorn")):
            for mark in item.iter_markers(name):
                (reason,) = mark.args
                if is_other:
                    item.add_marker(pytest.mark.skip(reason=f"{name}: {reason}"))


def gateway(settings: Settings, **ports: Any) -> Gateway:
    """A gateway that reaches its providers as this run does, unless the ports say how."""
    if Ways.transport == "httpx" and not {"exchange", "transport"} & ports.keys():
        ports["transport"] = httpx.AsyncHTTPTransport(trust_env=False, limits=httpx.Limits(max_connections=None))
    return Gateway(settings, **ports)
