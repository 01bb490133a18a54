"""Which worker processes should run: started, replaced when they die, ended when the server leaves. No I/O."""

from __future__ import annotations

from enum import Enum

import msgspec

_STEADY_SECONDS = 10.0
"""A worker that has lived for so long is replaced at once when it dies."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0


class Ending(Enum):
    """What the death of a worker means.

    EXPECTED: the server is leaving. REPLACED: another one is due. FATAL: it could not start, and nor will others.
    """

    EXPECTED = "expected"
    REPLACED = "replaced"
    FATAL = "fatal"


class Slot(msgspec.Struct):
    """The place of one worker. `due` is when one is to be started there."""

    number: int
    due: float
    pid: int | None = None
    started: float = 0.0
    is_ready: bool = False
    failures: int = 0
    is_replacement: bool = False


class Crew:
    """Keeps `size` workers going. All times are monotonic seconds.

    A worker that dies before it was ready, while none of its place ever was, is fatal: the configuration or the machine
    does not let any worker start, and trying again and again would hide that.
    """

    def __init__(self, size: int, *, now: float) -> None:
        self.slots = [Slot(number, due=now) for number in range(size)]
        self.has_served = False
        self.is_leaving = False

    def due(self, now: float) -> list[Slot]:
        """The places where a worker is to be started."""
        return [] if self.is_leaving else [s for s in self.slots if s.pid is None and s.due <= now]

    def next_due(self, now: float) -> float | None:
        """Seconds until there is a place to fill again; None: none is empty."""
        empty = [] if self.is_leaving else [s.due for s in self.slots if s.pid is None]
        return max(min(empty) - now, 0.0) if empty else None

    def started(self, slot: Slot, pid: int, now: float) -> None:
        """A worker was started in this place."""
        slot.pid, slot.started, slot.is_ready = pid, now, False

    def ready(self, pid: int) -> None:
        """This worker takes calls."""
        for slot in self.slots:
            if slot.pid == pid:
                slot.is_ready = self.has_served = True

    @property
    def is_ready(self) -> bool:
        """Whether every worker takes calls."""
        return all(slot.is_ready for slot in self.slots)

    @property
    def pids(self) -> list[int]:
        """The workers that live."""
        return [slot.pid for slot in self.slots if slot.pid is not None]

    def leave(self) -> None:
        """No worker is started any more."""
        self.is_leaving = True

    def ended(self, pid: int, now: float) -> Ending | None:
        """A worker has ended; None: it was none of ours."""
        slot = next((s for s in self.slots if s.pid == pid), None)
        if slot is None:
            return None
        was_ready, slot.pid, slot.is_ready = slot.is_ready, None, False
        if self.is_leaving:
            return Ending.EXPECTED
        if not (was_ready or self.has_served):
            return Ending.FATAL
        slot.is_replacement = True
        slot.due = now + self._pause(slot, now)
        return Ending.REPLACED

    @staticmethod
    def _pause(slot: Slot, now: float) -> float:
        if now - slot.started >= _STEADY_SECONDS:
            slot.failures = 0
            return 0.0
        slot.failures += 1
        return float(min(_FIRST_PAUSE * 2 ** (slot.failures - 1), _LONGEST_PAUSE))
