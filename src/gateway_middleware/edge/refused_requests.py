"""Requests that were refused before any layer could see them: broken, too large, too slow, too many."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Clock
    from gateway_middleware.edge.access_log import AccessLog

_LINES = 10
_SECONDS = 10.0


class RefusedRequests:
    """Counts them by their error code, and logs ten in ten seconds at most: who sends them decides how many there are.

    A line tells how many before it had none (`unlogged`). `clock` gives monotonic seconds.
    """

    def __init__(self, log: AccessLog, clock: Clock) -> None:
        self.counts: Counter[str] = Counter()
        self._log = log
        self._clock = clock
        self._began = clock()
        self._lines = self._unlogged = 0

    def note(self, *, status: int, code: str, message: str, request_id: str) -> None:
        """One more."""
        self.counts[code] += 1
        now = self._clock()
        if now - self._began >= _SECONDS:
            self._began, self._lines = now, 0
        if self._lines >= _LINES:
            self._unlogged += 1
            return
        self._lines += 1
        unlogged, self._unlogged = self._unlogged, 0
        fields = {"status": status, "code": code, "message": message, "request_id": request_id, "unlogged": unlogged}
        self._log.event("request_refused", level="warning", **fields)
