"""What `serve` and `demo` need beyond the gateway itself."""

from __future__ import annotations

from importlib import import_module

_SERVE = ("uvicorn", "uvloop")


def require_serve(command: str) -> None:
    """Exit with status 1 and one line on standard error where the packages of the extra `serve` are missing."""
    missing = [name for name in _SERVE if not _is_installed(name)]
    if missing:
        raise SystemExit(
            f"{command}: {' and '.join(missing)} not installed. "
            "HINT: install the extra `serve`: pip install 'gateway-middleware[serve]'"
        )


def _is_installed(package: str) -> bool:
    try:
        import_module(package)
    except ImportError:
        return False
    return True
