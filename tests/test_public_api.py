"""What the package offers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gateway_middleware

ROOT = Path(__file__).parents[1]


def test_all_is_sorted_and_there() -> None:
    assert gateway_middleware.__all__ == sorted(gateway_middleware.__all__)
    assert all(hasattr(gateway_middleware, name) for name in gateway_middleware.__all__)


def test_importing_reads_no_environment_and_starts_nothing() -> None:
    program = (
        "import os, threading, sys\n"
        "os.environ.clear()\n"
        "import gateway_middleware\n"
        "from gateway_middleware import Gateway\n"
        "assert threading.active_count() == 1\n"
        "assert 'uvicorn' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_changelog_begins_with_this_version() -> None:
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## [")]

    assert headings[0].startswith(f"## [{gateway_middleware.__version__}]")


def test_no_layer_subclasses_base_http_middleware() -> None:
    found = [path for path in (ROOT / "src").rglob("*.py") if "BaseHTTPMiddleware" in path.read_text()]

    assert found == []
