"""The tables of `docs/translation.md` are what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway_middleware.__main__ import main
from gateway_middleware.commands.translation_table import replaced

DOCUMENT = Path(__file__).parents[2] / "docs" / "translation.md"


def test_the_tables_are_current() -> None:
    text = DOCUMENT.read_text("utf-8")
    assert replaced(text) == text, "run: python -m gateway_middleware translation-table --write docs/translation.md"


def test_the_tables_are_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translation-table"]) == 0
    assert "| n (above 1) | refused | refused |" in capsys.readouterr().out
    assert main(["translation-table", "--write", str(tmp_path)]) == 1
    empty = tmp_path / "empty.md"
    empty.write_text("nothing", "utf-8")
    assert main(["translation-table", "--write", str(empty)]) == 1


def test_the_table_of_models_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model-table"]) == 0
    assert '"gpt-4o": 128_000,' in capsys.readouterr().out
    assert main(["model-table", "--write", str(tmp_path / "table.py")]) == 0
