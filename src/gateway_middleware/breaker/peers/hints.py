"""Breakers that other replicas have opened. One replica may be blind; two that agree are worth a hint."""

from __future__ import annotations

AGREEING = 2
"""How many others must say it."""
_SAME = 0.25
_MOST = 4096


class HintBoard:
    """Who says of which breaker that it is open, and until when. Times are seconds of one clock."""

    def __init__(self, replica: str) -> None:
        self._replica = replica
        self._voices: dict[str, dict[str, float]] = {}
        self._acted: dict[str, float] = {}

    def note(self, key: str, replica: str, until: float, now: float) -> float | None:
        """Returns for how many seconds at least two others agree, when that is news."""
        if replica == self._replica:
            return None
        voices = self._voices.setdefault(key, {})
        voices[replica] = until
        for silent in [name for name, said in voices.items() if said <= now]:
            del voices[silent]
        if len(self._voices) > _MOST:
            self.sweep(now)
        if len(voices) < AGREEING:
            return None
        agreed = sorted(voices.values())[-AGREEING]
        if agreed <= self._acted.get(key, now) + _SAME:
            return None
        self._acted[key] = agreed
        return agreed - now

    def forget(self, key: str) -> None:
        """An operator has spoken about a breaker, or about all of a provider."""
        for name in [name for name in self._voices if name == key or name.startswith(f"{key}/")]:
            del self._voices[name]

    def sweep(self, now: float) -> None:
        """Forget what is over; when that is not enough, everything."""
        for key, voices in list(self._voices.items()):
            if all(until <= now for until in voices.values()):
                del self._voices[key]
                self._acted.pop(key, None)
        if len(self._voices) > _MOST:
            self._voices.clear()
            self._acted.clear()
