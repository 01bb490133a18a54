"""What is kept by names from outside has an end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.bounded import BoundedNames, make_room


@given(st.lists(st.text(max_size=2)), st.integers(1, 5))
def test_the_first_names_stand_for_themselves_for_ever(names: list[str], max_names: int) -> None:
    label = BoundedNames(max_names)
    first = list(dict.fromkeys(names))[:max_names]

    assert [label(name) for name in names] == [name if name in first else "other" for name in names]


@given(st.dictionaries(st.integers(), st.floats(allow_nan=False), max_size=40), st.integers(1, 40))
def test_an_eighth_makes_room_and_the_lowest_go_first(entries: dict[int, float], max_entries: int) -> None:
    before = dict(entries)
    make_room(entries, max_entries, rank=before.__getitem__)
    gone = before.keys() - entries.keys()

    assert len(gone) == (min(max_entries // 8 + 1, len(before)) if len(before) >= max_entries else 0)
    assert all(before[out] <= before[stays] for out in gone for stays in entries)


def test_only_candidates_go() -> None:
    entries = dict.fromkeys("abcdefgh", 0)
    make_room(entries, 8, rank=str, candidates=["c", "b"])

    assert "".join(entries) == "adefgh"
    make_room(entries, 6, rank=str, candidates=[])
    assert len(entries) == 6
