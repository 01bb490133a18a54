"""A figure with what it is measured against, and the table that they make."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


@dataclass(frozen=True)
class Figure:
    """One line: `value` is the gateway's, `nginx` that of nginx in the same run; `ratio` their quotient or the like.

    `floor` and `goal` are values that must be reached, `floor_ratio` a ratio that reaches the floor as well; less is
    better unless `more_is_better`. `digits` are those after the point.
    """

    row: str
    what: str
    value: float
    nginx: float | None = None
    ratio: float | None = None
    floor: float | None = None
    floor_ratio: float | None = None
    goal: float | None = None
    goal_ratio: float | None = None
    digits: int = 0
    more_is_better: bool = False

    def reached(self) -> str:
        """`goal`, `floor` or `no`."""
        if self._is_within(self.goal, self.goal_ratio):
            return "goal"
        return "floor" if self._is_within(self.floor, self.floor_ratio) else "**no**"

    def _is_within(self, value: float | None, ratio: float | None) -> bool:
        by_value = value is not None and (self.value >= value if self.more_is_better else self.value <= value)
        return by_value or (ratio is not None and self.ratio is not None and self.ratio <= ratio)

    def cells(self) -> list[str]:
        def number(value: float | None) -> str:
            return "" if value is None else f"{value:,.{self.digits}f}"

        def target(value: float | None, ratio: float | None) -> str:
            return " or ".join(filter(None, [number(value), f"{ratio:.1f} x" if ratio is not None else ""]))

        ratio = "" if self.ratio is None else f"{self.ratio:.2f} x"
        floor, goal = target(self.floor, self.floor_ratio), target(self.goal, self.goal_ratio)
        return [self.row, self.what, number(self.nginx), number(self.value), ratio, floor, goal, self.reached()]


_HEAD = ["row", "what", "nginx", "gateway", "ratio", "floor", "goal", "reached"]


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table that reads well in a terminal too."""
    return aligned([_HEAD, *(figure.cells() for figure in figures)], left={0, 1, 7})


def aligned(rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,)) -> str:
    """Cells as a Markdown table, the first row its head; columns are to the right but for those in `left`."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]

    def line(cells: Sequence[str]) -> str:
        padded = (c.ljust(w) if n in left else c.rjust(w) for n, (c, w) in enumerate(zip(cells, widths, strict=True)))
        return "| " + " | ".join(padded) + " |"

    rule = "|".join("-" * (w + 2) if n in left else "-" * (w + 1) + ":" for n, w in enumerate(widths))
    return "\n".join([line(rows[0]), f"|{rule}|", *(line(row) for row in rows[1:])])


def machine() -> str:
    """When and on what: a line to stand under a table."""
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    cpu = model.group(1) if model else platform.processor()
    versions = f"{time.strftime('%Y-%m-%d')}, CPython {platform.python_version()}, {cpu}"
    return f"{versions}; server on one core, provider and load on another"


def write_between(page: Path, text: str, marks: tuple[str, str] = (BEGIN, END)) -> None:
    """Put a text between the two marks of a page; ValueError where it has none."""
    before, begin, rest = page.read_text().partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise ValueError(f"{page} has no {marks[0]} and {marks[1]}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")
