"""A stream that is alive and brings nothing ends."""

from __future__ import annotations

import pytest

from clock import Clock
from gateway_middleware.core.errors import UpstreamTimeoutError
from gateway_middleware.upstream.progress import Progress, is_content

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
KEEPALIVE = b'event: keepalive\ndata: {"type":"keepalive","sequence_number":3}\n\n'
DELTA = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        (b": ping\n\n", False), (PING, False), (KEEPALIVE, False), (PING + PING, False), (b"\n\n", False), (b"", False),
        (b"event:ping\ndata:{}\n\n", False), (DELTA, True), (PING + DELTA, True), (b": c\n\n" + DELTA, True),
    ],
)  # fmt: skip
def test_pings_are_no_content(chunk: bytes, expected: bool) -> None:
    assert is_content(chunk) is expected


def test_content_moves_the_deadline_and_pings_do_not() -> None:
    clock = Clock()
    progress = Progress(300.0, clock)
    for _ in range(5):
        clock.advance(299)
        progress.check(PING)
        progress.check(DELTA)
    for _ in range(10):
        clock.advance(30)
        progress.check(PING)
    clock.advance(1)
    with pytest.raises(UpstreamTimeoutError, match="content_idle") as timeout:
        progress.check(PING)
    assert timeout.value.phase == "idle"


def test_data_that_speaks_of_pings_is_content_and_a_name_may_follow_the_data() -> None:
    clock = Clock()
    progress = Progress(1.0, clock)
    for chunk in (DELTA, b'data: {"choices":[{"delta":{"content":"event: ping"}}]}\n\n' + DELTA):
        clock.advance(5)
        progress.check(chunk)
    clock.advance(5)
    with pytest.raises(UpstreamTimeoutError):
        progress.check(b"data: {}\nevent: ping\n\n")


def test_a_piece_of_a_large_event_is_content() -> None:
    clock = Clock()
    progress = Progress(1.0, clock)
    clock.advance(5)
    progress.check(b"A" * 2000)
