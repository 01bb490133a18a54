"""How many connections a process may take with the file descriptors that the system allows it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gateway_middleware.serving.descriptors import enough_for, needed_for

SCRIPT = """
import resource
from gateway_middleware.serving.descriptors import raise_limit
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(raise_limit(400), resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("descriptors", "connections"), [(256, 96), (1024, 480), (20_064, 10_000), (64, 1), (10, 1)])
def test_what_is_enough(descriptors: int, connections: int) -> None:
    assert enough_for(descriptors) == connections
    assert needed_for(connections) <= descriptors or connections == 1


@pytest.mark.parametrize(
    ("soft", "hard", "printed"),
    [
        (256, 256, "96 (256, 256)"), (256, 600, "268 (600, 600)"), (256, 2000, "400 (864, 2000)"),
        (900, 900, "400 (900, 900)"),
    ],
)  # fmt: skip
def test_the_soft_limit_is_raised_as_far_as_needed_and_allowed(soft: int, hard: int, printed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(soft=soft, hard=hard)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == printed
