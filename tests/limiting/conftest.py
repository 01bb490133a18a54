"""A real Redis for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from redis_process import BINARY, WHY_SKIPPED, RedisProcess


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """One Redis for all tests that do it no harm: use keys of your own."""
    if BINARY is None:
        pytest.skip(WHY_SKIPPED)
    process = RedisProcess(tmp_path_factory.mktemp("redis"))
    yield process
    process.kill()


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """A Redis that may be killed, frozen and flushed."""
    if BINARY is None:
        pytest.skip(WHY_SKIPPED)
    process = RedisProcess(tmp_path_factory.mktemp("redis"))
    yield process
    process.kill()
