"""Fixtures of the whole suite."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest

import parallel
import ways
from redis_cluster import cluster
from redis_process import own_redis, shared_cluster, shared_redis

__all__ = ["anyio_backend", "cluster", "own_redis", "shared_cluster", "shared_redis"]

# A busy machine is no fault.
hypothesis.settings.register_profile(
    "suite",
    parent=hypothesis.settings.default,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],  # a busy machine is slow, too
)
hypothesis.settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    ways.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    ways.choose(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ways.skip_what_is_not_promised(items)
    parallel.put_servers_first(config, items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> parallel.Sharing:
    return parallel.Sharing(config, log)


@pytest.fixture
def anyio_backend() -> str:
    """The gateway runs on asyncio (uvloop in production)."""
    return "asyncio"
