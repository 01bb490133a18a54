"""The README's Python runs, its files exist, its commands are the ones that CI runs."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from gateway_middleware import Gateway

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_mounting_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setenv("GATEWAY_OPEN", "true")
    example = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "mount(app" in block)
    found: dict[str, object] = {}

    exec(example, found)  # noqa: S102

    assert isinstance(found["gateway"], Gateway)


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)

    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_ci_finds_the_test_command() -> None:
    block = README.partition("<!-- tests:begin -->")[2].partition("<!-- tests:end -->")[0]

    assert "-m pytest" in block
    assert "tests:begin" in (ROOT / ".ci" / "run").read_text()


def test_every_core_that_coverage_is_asked_of_is_there() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    report = config["coverage:report"]
    patterns = [*report["include"].split(), *report["omit"].split()]
    assert [pattern for pattern in patterns if not list(ROOT.glob(pattern))] == []
    assert report.getint("fail_under") == 100
