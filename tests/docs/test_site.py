"""The documentation as a site: it builds without a warning, loads nothing from elsewhere, and its code runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OTHERS = {"api.md", "providers.md"}
"""Pages whose examples have tests of their own."""


def blocks(language: str) -> list[pytest.ParameterSet]:
    """Every block of code in this language, by its page and number."""
    found = [(page, code) for page in PAGES for name, code in BLOCK.findall(page.read_text()) if name == language]
    return [pytest.param(page.name, code, id=f"{page.name}-{n}") for n, (page, code) in enumerate(found)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built_and_can_be_reached(site: Path) -> None:
    built = {page.stem for page in site.glob("*.html")} - {"404", "search"}
    assert {page.stem for page in PAGES if page.name != "README.md"} <= built
    assert (site / "pictures").is_dir()


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loading = re.compile(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"(https?:)?//[^\"]*\"")
    assert [page.name for page in site.rglob("*.html") if loading.search(page.read_text())] == []


@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_python_of_the_pages_runs(page: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page in OTHERS:
        return
    needs = re.findall(r"^# needs: (.*)$", code, re.MULTILINE)
    for package in ", ".join(needs).split(", ") if needs else ():
        if find_spec(package) is None:
            compile(code, page, "exec")
            pytest.skip(f"{package} is not among what tests install")
    for name, value in {"OPENAI_API_KEY": "sk-0123456789", "GATEWAY_OPEN": "true", "GATEWAY_JOURNAL": "off"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page, "exec"), {"__name__": "page"})  # noqa: S102  # our own page


@pytest.mark.parametrize(("page", "code"), blocks("sh"))
def test_shell_of_the_pages_can_be_read(page: str, code: str) -> None:
    assert subprocess.run(["bash", "-n"], input=code, text=True, check=False).returncode == 0, page


@pytest.mark.parametrize(("page", "code"), blocks("json"))
def test_json_of_the_pages_is_json(page: str, code: str) -> None:
    json.loads(code)


@pytest.mark.parametrize(("page", "code"), blocks("toml"))
def test_toml_of_the_pages_is_toml(page: str, code: str) -> None:
    tomllib.loads(code)
