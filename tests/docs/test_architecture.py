"""Every file, class and name that the architecture page speaks of is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from gateway_middleware.composition.part import Part
from gateway_middleware.gateway import Gateway
from rig import Rig

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ARCHITECTURE.md").read_text("utf-8")
PATHS = sorted(set(re.findall(r"`([\w/]+\.(?:py|md|cfg))`", PAGE)))
MODULES = sorted(set(re.findall(r"`((?:[a-z_]+\.)+[A-Z]\w+)`", PAGE)))


@pytest.mark.parametrize("name", PATHS)
def test_a_file_is_there(name: str) -> None:
    assert any((folder / name).is_file() for folder in (ROOT, ROOT / "src" / "gateway_middleware", ROOT / "docs"))


@pytest.mark.parametrize("name", MODULES)
def test_a_class_is_there(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(f"gateway_middleware.{module}"), attribute)


def test_the_table_of_layers_is_the_stack() -> None:
    rows = re.findall(r"^\| \w+ \| `[\w.]+\.(\w+)` \|", PAGE, re.MULTILINE)
    classes = [layer.cls.__name__ for layer in Rig(GATEWAY_JOURNAL="on.db").gateway.middleware]  # type: ignore[attr-defined]
    classes.remove("LateStart")
    assert rows == [*classes, "Dispatch"]


def test_the_folders_are_those_of_the_page() -> None:
    house = PAGE.partition("## The house")[2].partition("## ")[0]
    folders = {p.name for p in (ROOT / "src" / "gateway_middleware").iterdir() if (p / "__init__.py").is_file()}
    assert {name for name in folders if f"{name}/" not in house} == set()


def test_names_of_the_house_exist() -> None:
    assert hasattr(Part, "lifespan")
    assert hasattr(Part, "prepare")
    assert hasattr(Gateway, "_make_layers")
