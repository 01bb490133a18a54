"""The page about providers is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway_middleware import Settings
from gateway_middleware.providers import KINDS

PAGE = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()
ROWS = {
    row[0].strip("` "): row for line in PAGE.splitlines() if (row := line.strip("|").split("|"))[0].startswith(" `")
}


def test_every_kind_has_a_row_with_its_address_and_options() -> None:
    assert list(ROWS) == list(KINDS)
    for name, kind in KINDS.items():
        address, options = ROWS[name][2], ROWS[name][4]
        assert kind.public_url is None or f"`{kind.public_url}`" in address
        assert kind.options <= set(re.findall(r"`(\w+)`", options))


def test_the_example_makes_a_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_OPEN", "true")
    monkeypatch.setenv("GATEWAY_JOURNAL", "off")
    monkeypatch.setenv("GATEWAY_PROVIDERS", '{"e": {"kind": "example", "api_key": "k-0123456789", "project": "p"}}')
    example = PAGE.rpartition("```python\n")[2].partition("```")[0]
    names: dict[str, object] = {}
    exec(example, names)  # noqa: S102  the page is ours
    settings = names["settings"]
    assert isinstance(settings, Settings)
    assert (settings.providers[0].kind, settings.providers[0].base_url) == ("example", "https://api.example.ai/v1")
