"""The README's table is the one that the settings draw."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway_middleware.settings import VARIABLES
from gateway_middleware.settings.table import BEGIN, END, render_table, replace_between

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_readme_is_current() -> None:
    _, begin, rest = README.read_text("utf-8").partition(BEGIN)
    table, end, _ = rest.partition(END)
    assert begin
    assert end
    assert table.strip() == render_table().strip(), "run: python -m gateway_middleware settings-table --write README.md"


def test_every_variable_has_one_row_of_three_cells() -> None:
    rows = render_table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [v.name for v in VARIABLES]
    assert all(row.replace("\\|", "").count("|") == 4 for row in rows)


@pytest.mark.parametrize(
    "row",
    [
        "| `GATEWAY_PORT` | `8080` | Where `serve` listens; 0 takes a free port. |",
        "| `GATEWAY_OPEN` | `false` | `true`: no tenants are needed, every caller is let in. |",
        "| `GATEWAY_DRAIN_SECONDS` | `30` | How long calls may take to end when the gateway is stopped. |",
        "| `GATEWAY_MAX_ATTEMPTS` | `3` | Upstream tries per call, over all deployments of its route. |",
        "| `GATEWAY_MAX_BODY_BYTES` | `33554432` (32 MiB) | The largest request body. |",
        "| `OPENAI_API_KEY` | none | Switches on the provider `openai`. |",
    ],
)
def test_defaults_come_from_the_settings(row: str) -> None:
    assert row in render_table().splitlines()


def test_only_what_is_between_the_markers_is_replaced() -> None:
    assert replace_between(f"a\n{BEGIN}\nold\n{END}\nz\n") == f"a\n{BEGIN}\n{render_table()}{END}\nz\n"
    for document in ("nothing", BEGIN, END, f"{END}{BEGIN}"):
        with pytest.raises(ValueError, match="settings:begin"):
            replace_between(document)
