"""Which entries are news, which hold, and that every process ends with the same ones."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from clock import EPOCH, Clock
from gateway_middleware.fleet.entries import Entry, id_digest
from gateway_middleware.fleet.shared_log import SharedLog

NOW = int(EPOCH * 1_000_000)


def log(clock: Clock | None = None, origin: str = "me", *, ahead: float = 0.0, **more: Any) -> SharedLog:
    clock = clock or Clock()
    return SharedLog(origin, clock=clock, wall=lambda: clock.wall() + ahead, **more)


def entry(key: str = "k", version: int = NOW, *, origin: str = "other", seconds: float | None = None) -> Entry:
    return Entry(kind="x", key=key, body=b"{}", origin=origin, version=version, seconds=seconds)


def test_what_is_known_is_no_news() -> None:
    mine = log()
    assert mine.read([entry()]) == [entry()]
    assert mine.read([entry()]) == []
    assert mine.read([entry(version=NOW - 1)]) == []
    assert mine.live() == [entry()]


def test_what_has_expired_is_held_no_longer_than_until_the_next_entry() -> None:
    clock = Clock()
    mine = log(clock)
    for number in range(100):
        mine.write("answer", str(number), b"{}", 10.0)
        clock.advance(1.0)
    assert len(mine) == 10
    mine.write("answer", "99", b"{}", 10.0)  # replaced: its first end is passed over
    clock.advance(9.5)
    mine.read([entry()])
    assert {e.key for e in mine.live()} == {"99", "k"}


def test_the_newest_of_a_name_stands_and_equal_versions_are_decided_by_origin() -> None:
    mine = log()
    mine.read([entry(version=NOW + 1, origin="b")])
    assert mine.read([entry(version=NOW + 1, origin="a")]) == []
    assert [e.origin for e in mine.read([entry(version=NOW + 1, origin="c")])] == ["c"]


def test_news_come_oldest_first() -> None:
    news = log().read([entry("b", NOW + 2), entry("a", NOW + 3), entry("c", NOW + 1)])
    assert [e.key for e in news] == ["c", "b", "a"]


def test_own_entries_that_come_back_are_no_news() -> None:
    mine = log()
    written = mine.write("x", "k", b"{}", None)
    assert mine.read([written]) == []


def test_a_process_whose_clock_is_behind_writes_what_counts_as_newer() -> None:
    clock = Clock()
    ahead, behind = log(clock, "ahead", ahead=3600.0), log(clock, "behind", ahead=-3600.0)
    first = ahead.write("x", "k", b"1", None)
    behind.read([first])
    second = behind.write("x", "k", b"2", None)
    assert ahead.read([second]) == [second]
    assert ahead.find("x", "k") == second


def test_an_entry_ends_and_another_may_take_its_place() -> None:
    clock = Clock()
    mine = log(clock)
    mine.read([entry(seconds=10.0)])
    clock.advance(4)
    assert [e.seconds for e in mine.live()] == [6.0]
    clock.advance(7)
    assert mine.find("x", "k") is None
    assert mine.live() == []
    assert mine.read([entry(version=NOW - 5, seconds=1.0)]) != []


def test_what_has_expired_or_cannot_be_is_not_read() -> None:
    mine = log()
    assert mine.read([entry(seconds=0.0), entry(seconds=-1.0), entry(version=0), entry(version=2**53)]) == []
    assert mine.write("x", "k", b"{}", None).version == NOW


def test_the_oldest_of_too_many_go() -> None:
    mine = log(max_entries=8)
    mine.read([entry(str(n), NOW + n) for n in range(20)])
    assert len(mine.live()) <= 8
    assert mine.live()[-1].key == "19"


entries = st.builds(
    entry,
    key=st.sampled_from("abc"),
    version=st.integers(NOW, NOW + 5),
    origin=st.sampled_from(["p", "q"]),
)


@settings(deadline=None)
@given(st.lists(entries, max_size=12), st.randoms(use_true_random=False), st.integers(1, 5))
def test_all_end_alike_in_whatever_order_and_however_often_they_hear(
    heard: list[Entry], random: Any, at_once: int
) -> None:
    one, other = log(), log()
    one.read(heard)
    again = [*heard, *heard]
    random.shuffle(again)
    for start in range(0, len(again), at_once):
        other.read(again[start : start + at_once])
    assert {e.name: e for e in one.live()} == {e.name: e for e in other.live()}


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(-100, 100), st.booleans()), max_size=20))
def test_what_is_written_last_stands_however_clocks_differ(steps: list[tuple[str, float, bool]]) -> None:
    clock, ahead = Clock(), {"a": 0.0, "b": 0.0}
    logs = {name: SharedLog(name, clock=clock, wall=lambda n=name: clock.wall() + ahead[n]) for name in ahead}  # type: ignore[misc]
    for number, (name, skew, passes) in enumerate(steps):
        ahead[name] = skew
        written = logs[name].write("x", "k", str(number).encode(), None)
        assert logs["b" if name == "a" else "a"].read([written]) == [written]
        clock.advance(float(passes))


def test_digests_of_ids() -> None:
    assert len(id_digest("r" * 10_000)) == len(id_digest("\udc80")) == 16
    assert id_digest("a") != id_digest("b")
