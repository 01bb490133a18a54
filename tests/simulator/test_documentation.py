"""docs/simulator.md names everything there is, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway_middleware.simulator import Behaviour, Match, Replay
from gateway_middleware.simulator.behaviour import FAULTS
from gateway_middleware.simulator.names import KNOBS, behaviour_of
from gateway_middleware.simulator.vendors import VENDORS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "simulator.md").read_text("utf-8")


def rows(heading: str) -> set[str]:
    """The first cells of the table below a heading, each of which may hold several names."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_knob_of_a_behaviour_has_its_row() -> None:
    assert rows("Knobs") == set(Behaviour.__struct_fields__)


def test_every_fault_has_its_row() -> None:
    assert rows("Faults") == set(FAULTS)


def test_every_knob_of_a_model_name_has_its_row() -> None:
    assert {name.removeprefix("sim-").partition("-")[0] for name in rows("Model names")} == {*KNOBS, "429"}


def test_matches_and_replays_are_explained() -> None:
    assert set(Match.__struct_fields__) <= rows("Matches")
    assert rows("Replay") == set(Replay.__struct_fields__)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(sim-[^`]*[a-z0-9])`", PAGE))))
def test_every_name_in_the_page_can_be_read(name: str) -> None:
    assert behaviour_of(re.sub(r"-n\b", "-2", name)) is not None


def test_every_look_alike_is_named() -> None:
    section = PAGE.partition("## Look-alikes\n")[2].partition("\n## ")[0]
    assert VENDORS.keys() <= set(re.findall(r"`([^`]+)`", section))
