"""The table of the benchmarks says what was reached."""

from pathlib import Path

import pytest
from benchmarks.figures import BEGIN, END, Figure, table, write_between


@pytest.mark.parametrize(
    ("figure", "reached"),
    [
        (Figure("r", "w", 80, floor=95, goal=85), "goal"),
        (Figure("r", "w", 90, floor=95, goal=85), "floor"),
        (Figure("r", "w", 96, floor=95, goal=85), "**no**"),
        (Figure("r", "w", 200, ratio=6.0, floor=95, floor_ratio=6.3, goal=85), "floor"),
        (Figure("r", "w", 200, ratio=6.4, floor=95, floor_ratio=6.3, goal=85), "**no**"),
        (Figure("r", "w", 1, ratio=1.6, floor_ratio=2.0, goal_ratio=1.7), "goal"),
        (Figure("r", "w", 1, floor_ratio=2.0), "**no**"),
        (Figure("r", "w", 3_200, floor=3_150, goal=3_250, more_is_better=True), "floor"),
        (Figure("r", "w", 3_100, floor=3_150, goal=3_250, more_is_better=True), "**no**"),
    ],
)
def test_a_figure_reaches_goal_floor_or_neither(figure: Figure, reached: str) -> None:
    assert figure.reached() == reached


def test_the_table_is_aligned_and_shows_targets_both_ways() -> None:
    lines = table(
        [
            Figure("c64", "one call", 243.6, 21.5, 11.33, floor=95, floor_ratio=6.3, goal=85),
            Figure("limits", "one decision", 4.21, floor=10, goal=5, digits=1),
        ]
    ).splitlines()
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[2] == ["c64", "one call", "22", "244", "11.33 x", "95 or 6.3 x", "85", "**no**"]
    assert cells[3] == ["limits", "one decision", "", "4.2", "", "10.0", "5.0", "goal"]


def test_a_page_keeps_what_stands_around_its_table(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_between(page, "new")
    assert page.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text")
    with pytest.raises(ValueError, match="has no"):
        write_between(page, "new")
    assert page.read_text() == "text"
