"""A reload of one worker after the other. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

_ANSWER_SECONDS = 30.0


class RollingReload:
    """Which worker is to read its configuration now. Workers are process ids, all times are monotonic seconds.

    One that refuses, or says nothing for 30 seconds, ends the reload: the others keep what they have.
    """

    def __init__(self) -> None:
        self._waiting: list[int] = []
        self._asked: int | None = None
        self._until = 0.0

    def begin(self, workers: Iterable[int]) -> None:
        """Reload all of these. One that was asked and has not answered is asked again afterwards."""
        self._waiting += [worker for worker in workers if worker not in self._waiting]

    def next(self, now: float) -> int | None:
        """The worker to be asked now; None while another one has not answered, or when all have."""
        if self._asked is not None or not self._waiting:
            return None
        self._asked = self._waiting.pop(0)
        self._until = now + _ANSWER_SECONDS
        return self._asked

    def answered(self, worker: int, *, is_taken: bool) -> None:
        """A worker has answered."""
        if worker == self._asked:
            self._asked = None
            if not is_taken:
                self._waiting.clear()

    def gone(self, worker: int) -> None:
        """A worker has ended: the one in its place starts with the configuration of the moment."""
        self._waiting = [other for other in self._waiting if other != worker]
        if worker == self._asked:
            self._asked = None

    def stop(self) -> None:
        """Ask nobody any more."""
        self._waiting.clear()
        self._asked = None

    def silent(self, now: float) -> int | None:
        """The worker that has not answered in time."""
        return self._asked if self._asked is not None and now >= self._until else None

    def seconds_left(self, now: float) -> float | None:
        """How long the one that was asked may still take; None: nobody was."""
        return None if self._asked is None else max(self._until - now, 0.0)
