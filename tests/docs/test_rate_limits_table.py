"""The table of counted fields in docs/rate-limits.md is the one of the code."""

from __future__ import annotations

from pathlib import Path

from gateway_middleware.core.counted_fields import COUNTED, render_table
from gateway_middleware.core.domain import Surface

PAGE = Path(__file__).parents[2] / "docs" / "rate-limits.md"


def test_the_page_shows_the_table_of_the_code() -> None:
    _, begin, rest = PAGE.read_text("utf-8").partition("<!-- counted:begin -->\n")
    table, end, _ = rest.partition("<!-- counted:end -->")
    assert begin
    assert end
    assert table == render_table(), "put what `render_table` gives between the markers"


def test_every_surface_has_its_row() -> None:
    assert set(COUNTED) == set(Surface)
    assert render_table().count("\n") == len(Surface) + 2
    assert "nothing: free" in render_table()
