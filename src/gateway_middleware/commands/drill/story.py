"""What a drill tells: scenes, what the on-call types and sees, and promises that are kept or broken."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

_MAX_LINE = 150


class Story:
    """Prints as it goes. `broken` are the promises that were not kept: a drill without any has succeeded."""

    def __init__(self, write: Callable[[str], None] = print, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.broken: list[str] = []
        self.promises = 0
        self._write = write
        self._clock = clock
        self._began = clock()
        self._scenes = 0

    def scene(self, text: str) -> None:
        """Something happens, or somebody does something."""
        self._scenes += 1
        self._write(f"\n{self._scenes}. {text}  ({self._clock() - self._began:.1f} s)")

    def shell(self, command: str, output: Any) -> None:
        """A command as the on-call types it, and what it prints."""
        self._write(f"   $ {command}")
        text = output if isinstance(output, str) else json.dumps(output)
        for line in text.splitlines()[:6]:
            self._write(f"     {line if len(line) <= _MAX_LINE else line[: _MAX_LINE - 1] + '…'}")

    def promise(self, text: str, holds: bool, figure: object = "") -> None:  # noqa: FBT001 - reads as a sentence
        """What the runbook promises, and the figure that was measured."""
        self.promises += 1
        if not holds:
            self.broken.append(f"{text}: {figure}")
        self._write(f"   [{'kept' if holds else 'BROKEN'}] {text}" + (f": {figure}" if figure != "" else ""))
