"""What the soak takes for growth."""

import pytest
from benchmarks.soak import is_flat

_IDLE = {"rss_mb": 57.0, "descriptors": 25.0, "threads": 8.0, "tasks": 7.0}
_SIZE = {"rss_mb": 70.0, "descriptors": 76.0, "threads": 8.0, "tasks": 7.0}


@pytest.mark.parametrize(
    ("last", "flat"),
    [
        ({}, True),
        ({"rss_mb": 74.9, "descriptors": 78.0}, True),
        ({"rss_mb": 75.5}, False),
        ({"descriptors": 79.0}, False),
        ({"threads": 11.0}, False),
        ({"tasks": 10.0}, False),
        ({"rss_mb": 60.0, "tasks": 2.0}, True),
    ],
)
def test_growth_is_told_from_noise(last: dict[str, float], *, flat: bool) -> None:
    assert is_flat([_IDLE, _SIZE, _SIZE, _SIZE | last]) is flat


@pytest.mark.parametrize(("last", "flat"), [(72.0, True), (75.0, True), (76.0, False)])
def test_connections_kept_for_the_load_are_no_growth(last: float, *, flat: bool) -> None:
    assert is_flat([_IDLE, _SIZE | {"descriptors": 61.0}, _SIZE | {"descriptors": last}]) is flat
