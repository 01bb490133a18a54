"""Wheel and source distribution, as an index would get them: built from a copy of the tree, looked into, rendered."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILT_FROM = ("src", "tests", "docs", "benchmarks", "deploy")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("tree")
    for name in BUILT_FROM:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, tree)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "."]
    environment = os.environ | {"PYTHONPATH": ""}
    subprocess.run(command, cwd=tree, check=True, env=environment, stdout=subprocess.DEVNULL)
    return tree / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(next(built.glob("*.whl")))


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_string(wheel.read(name).decode())


def test_wheel_holds_the_whole_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    sources = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src/gateway_middleware").rglob("*.py")}
    names = set(wheel.namelist())
    assert sources <= names
    assert "gateway_middleware/py.typed" in names
    assert "gateway_middleware/metering/prices/genai_prices.table" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"gateway_middleware"}


def test_licence_is_the_apache_licence_in_repository_wheel_and_source(wheel: zipfile.ZipFile, built: Path) -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    inside = next(name for name in wheel.namelist() if name.endswith("licenses/LICENSE"))
    assert wheel.read(inside).decode() == text
    assert {"LICENSE", "NOTICE"} <= set(names_of_source(built))
    notice = next(name for name in wheel.namelist() if name.endswith("licenses/NOTICE"))
    assert b"genai-prices" in wheel.read(notice)


def names_of_source(built: Path) -> set[str]:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        return {member.name.split("/", 1)[1] for member in archive.getmembers() if "/" in member.name}


def test_source_distribution_can_be_tested_and_read(built: Path) -> None:
    names = names_of_source(built)
    tests = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py")}
    docs = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")}
    assert tests <= names
    assert docs <= names
    assert {"tox.ini", "setup.cfg", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"} <= names
    assert not [name for name in names if "__pycache__" in name]


def test_metadata_say_who_what_and_under_which_licence(metadata: Message) -> None:
    assert metadata["Author"] == "The Model Gateway authors"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Keywords"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert not [value for value in metadata.get_all("Classifier", []) if value.startswith("License ::")]
    assert metadata["Home-page"] is None  # no address is invented


def test_fewer_than_fifteen_packages_are_required_and_each_has_a_floor(metadata: Message) -> None:
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert len(required) < 15
    assert [line for line in required if ">=" not in line] == ["certifi"]


def test_readme_renders_on_an_index(built: Path) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir())]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stdout
