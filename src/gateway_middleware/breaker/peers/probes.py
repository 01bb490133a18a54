"""Whose turn it is to probe, when replicas share. No I/O: what has to be asked is in `requests`.

A lease is taken for a short time, prolonged to the life of the probe when one is handed out, and kept for a short time
after it, because more than one probe in a row has to go well. Nobody waits: whoever finds no lease has it asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

import msgspec

from gateway_middleware.core.domain import Clock

IDLE_SECONDS = 2.0
"""How long a lease is held without a probe."""
_DENIED_SECONDS = 0.25
_MARGIN = 0.1
_MOST = 4096


class _Is(Enum):
    ASKED = auto()
    DENIED = auto()
    IDLE = auto()
    USED = auto()


class _Lease(msgspec.Struct):
    state: _Is
    until: float
    """Held until, or not asked for again until."""


class Request(msgspec.Struct, frozen=True):
    """Hold the lease for `seconds`, or with 0 drop it."""

    seconds: float


class ProbeLeases:
    """The `ProbeGate` of a replica that shares. While `is_shared` is false it lets every probe through."""

    def __init__(self, clock: Clock, wake: Callable[[], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._found: dict[str, _Lease] = {}
        self.is_shared = False
        self.requests: dict[str, Request] = {}

    def prepare(self, key: str) -> None:
        """Have the lease asked for, unless it is held, asked for, or was denied a moment ago."""
        now = self._clock()
        lease = self._found.get(key)
        if self.is_shared and (lease is None or now >= lease.until - self._margin(lease)):
            self._found[key] = _Lease(_Is.ASKED, now + 1.0)
            self._request(key, IDLE_SECONDS)

    def may_probe(self, key: str, ttl: float) -> bool:
        """Whether the lease is held."""
        now = self._clock()
        if self.is_shared:
            lease = self._found.get(key)
            is_held = lease is not None and lease.state in {_Is.IDLE, _Is.USED}
            if lease is None or not is_held or now >= lease.until - _MARGIN:
                self.prepare(key)
                return False
            self._request(key, ttl)
        self._found[key] = _Lease(_Is.USED, now + ttl)
        return True

    def ended(self, key: str, *, again: bool) -> None:
        """Keep the lease for a moment, or give it back."""
        lease = self._found.pop(key, None)
        if not self.is_shared or lease is None or lease.state is _Is.DENIED:
            return
        if again and lease.state is not _Is.ASKED:
            self._found[key] = _Lease(_Is.IDLE, self._clock() + IDLE_SECONDS)
        self._request(key, IDLE_SECONDS if key in self._found else 0.0)

    # The other side: whoever carries out the requests.

    def share(self, *, is_shared: bool) -> None:
        """The store has come or gone. Probes that are out are made known to it."""
        self.is_shared = is_shared
        now = self._clock()
        self.requests.clear()
        self._found = {key: lease for key, lease in self._found.items() if lease.state is _Is.USED}
        if is_shared:
            for key, lease in self._found.items():
                if lease.until > now:
                    self._request(key, lease.until - now)

    def answered(self, key: str, request: Request, sent: float, others: float) -> None:
        """The lease was asked for at `sent`; it is somebody else's for `others` seconds, or ours."""
        lease = self._found.get(key)
        if lease is None or lease.state is _Is.DENIED:
            if not others and key not in self.requests:
                self._request(key, 0.0)
        elif others:
            # A probe that is out is not called back.
            self._found[key] = _Lease(_Is.DENIED, self._clock() + min(others, _DENIED_SECONDS))
        elif lease.state is _Is.ASKED:
            self._found[key] = _Lease(_Is.IDLE, sent + request.seconds)

    def sweep(self) -> None:
        """Forget what is over."""
        now = self._clock()
        for key in [key for key, lease in self._found.items() if now >= lease.until]:
            del self._found[key]

    def held(self) -> list[str]:
        """The leases that this replica holds or has asked for."""
        return [key for key, lease in self._found.items() if lease.state is not _Is.DENIED]

    def _margin(self, lease: _Lease) -> float:
        return 0.0 if lease.state in {_Is.ASKED, _Is.DENIED} else _MARGIN

    def _request(self, key: str, seconds: float) -> None:
        if len(self.requests) < _MOST or key in self.requests:
            self.requests[key] = Request(seconds)
            self._wake()
