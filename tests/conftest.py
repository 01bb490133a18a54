"""Fixtures of the whole suite."""

from __future__ import annotations

import pytest

from redis_process import own_redis, shared_cluster, shared_redis

__all__ = ["anyio_backend", "own_redis", "shared_cluster", "shared_redis"]


@pytest.fixture
def anyio_backend() -> str:
    """The gateway runs on asyncio (uvloop in production)."""
    return "asyncio"
