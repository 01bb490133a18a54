"""Fixtures of the whole suite."""

from __future__ import annotations

import hypothesis
import pytest

from redis_cluster import cluster
from redis_process import own_redis, shared_cluster, shared_redis

__all__ = ["anyio_backend", "cluster", "own_redis", "shared_cluster", "shared_redis"]

# A busy machine is no fault.
hypothesis.settings.register_profile("suite", parent=hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("suite")


@pytest.fixture
def anyio_backend() -> str:
    """The gateway runs on asyncio (uvloop in production)."""
    return "asyncio"
