"""A small file beside the spool that one process leaves for others: whole at any moment, for its owner's eyes only."""

from __future__ import annotations

import os
from pathlib import Path


def leave(path: Path, content: bytes, *, draft: str = "new") -> None:
    """Put this in the place of what was there before. Raises OSError.

    `draft` ends the name under which it is written first: processes that may write at once need one each.
    """
    fresh = path.with_name(f"{path.name}.{draft}")
    with os.fdopen(os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    fresh.replace(path)
