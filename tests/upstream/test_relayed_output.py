"""What was relayed is counted only when somebody wants to know, or when there is much of it."""

from __future__ import annotations

from gateway_middleware.core.domain import Surface
from gateway_middleware.upstream.relayed_output import OutputTally


class Bytes:
    """Counts a token for each byte."""

    def __init__(self, surface: Surface, model: str) -> None:
        self.made_for = (surface, model)
        self.feeds: list[bytes] = []

    @property
    def tokens(self) -> int:
        return sum(map(len, self.feeds))

    def feed(self, chunk: bytes) -> None:
        self.feeds.append(chunk)


class Counters:
    """Makes counters, and remembers them."""

    def __init__(self) -> None:
        self.made: list[Bytes] = []

    def __call__(self, surface: Surface, model: str) -> Bytes:
        self.made.append(Bytes(surface, model))
        return self.made[-1]


def test_where_nothing_was_relayed_nothing_is_known() -> None:
    counters = Counters()
    assert OutputTally(counters, Surface.CHAT, "m").tokens() is None
    assert counters.made == []


def test_nothing_is_counted_before_somebody_asks() -> None:
    counters = Counters()
    tally = OutputTally(counters, Surface.CHAT, "m")
    tally.add(b"data: a\n\n")
    tally.add(b"data: b\n\n")
    assert counters.made == []

    assert tally.tokens() == 18
    assert tally.tokens() == 18
    tally.add(b"data: c\n\n")
    assert tally.tokens() == 27
    (counter,) = counters.made
    assert counter.made_for == (Surface.CHAT, "m")


def test_much_is_counted_on_the_way_so_that_it_does_not_fill_memory() -> None:
    counters = Counters()
    tally = OutputTally(counters, Surface.CHAT, "m")
    for _ in range(100):
        tally.add(b"x" * 1024)
    (counter,) = counters.made
    assert len(counter.feeds) == 3
    assert tally.tokens() == 102_400


def test_a_whole_answer_is_one_event() -> None:
    counters = Counters()
    tally = OutputTally(counters, Surface.RESPONSES, "m")
    tally.add_whole(b'{\n"a": 1}')
    tally.tokens()
    assert counters.made[0].feeds == [b'data: { "a": 1}\n\n']


def test_where_nobody_estimates_nothing_is_known() -> None:
    tally = OutputTally(None, Surface.CHAT, "m")
    for _ in range(100):
        tally.add(b"x" * 1024)
    assert tally.tokens() is None
