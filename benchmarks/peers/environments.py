"""An environment of its own for each peer: a folder that pip or npm fills, and that is used again where it is there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

SECONDS = 1800
"""How long one step of an installation may take."""


class InstallError(Exception):
    """A peer is not to be had here; says what pip or npm said last."""


Run = Callable[[Sequence[str]], str]
"""Runs a command to its end, and returns what it printed; InstallError if it fails."""


@dataclass(frozen=True)
class Package:
    """What is installed: `extras` are those of a Python package."""

    name: str
    extras: str = ""
    from_npm: bool = False


@dataclass(frozen=True)
class Environment:
    """A folder with a package of this version in it."""

    folder: Path
    version: str


def run_command(command: Sequence[str]) -> str:
    """The real one; the environment is the user's (proxy, index), without what points to this project."""
    variables = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    try:
        out = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"{Path(command[0]).name}: {type(error).__name__}") from error
    if out.returncode:
        raise InstallError(f"{Path(command[0]).name}: {last_line(out.stderr or out.stdout)}")
    return out.stdout


def last_line(text: str, *, most: int = 160) -> str:
    """The last line that says something, shortened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:most] if lines else "it said nothing"


def environment(folder: Path, package: Package, run: Run = run_command) -> Environment:
    """Install a package into this folder unless it is there; InstallError where it cannot be had."""
    make = _from_npm if package.from_npm else _from_pip
    return Environment(folder, make(folder, package, run))


def _from_pip(folder: Path, package: Package, run: Run) -> str:
    python = folder / "bin" / "python"
    ask = [str(python), "-c", f"import importlib.metadata as m; print(m.version({package.name!r}))"]
    if python.exists():
        try:
            return run(ask).strip()
        except InstallError:
            pass  # Left by an installation that failed: once more.
    else:
        run([sys.executable, "-m", "venv", str(folder)])
    quietly = ["--quiet", "--disable-pip-version-check"]
    run([str(python), "-m", "pip", "install", *quietly, package.name + package.extras])
    return run(ask).strip()


def _from_npm(folder: Path, package: Package, run: Run) -> str:
    if shutil.which("node") is None:
        raise InstallError("node is not installed")
    manifest = folder / "node_modules" / package.name / "package.json"
    if not manifest.exists():
        folder.mkdir(parents=True, exist_ok=True)
        run(["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--no-package-lock", package.name])
    if not manifest.exists():
        raise InstallError(f"npm left no {package.name}")
    return str(json.loads(manifest.read_text())["version"])
