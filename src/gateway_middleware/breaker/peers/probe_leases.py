"""Whose turn it is to probe, when replicas share. No I/O: what has to be asked of the store is in `requests`.

A lease is taken for a short time, prolonged to the life of the probe when one is handed out, and kept for a short time
after it, because more than one probe in a row has to go well. Nobody waits: whoever finds no lease has it asked for.
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto

import msgspec

from gateway_middleware.core.domain import Clock

IDLE_SECONDS = 2.0
"""How long a lease is held without a probe."""
_ANSWER_SECONDS = 1.0
"""After so long without an answer a lease is asked for again."""
_DENIED_SECONDS = 0.25
_MARGIN = 0.1
_MAX_REQUESTS = 4096


class _State(Enum):
    REQUESTED = auto()
    DENIED = auto()
    IDLE = auto()
    PROBING = auto()


class _Lease(msgspec.Struct):
    state: _State
    until: float
    """Held until, or not asked for again until."""


class ProbeLeases:
    """The `ProbeGate` of a replica that may share. While it does not, it lets every probe through.

    `requests` are leases to be held for so many seconds, or with 0 to be dropped; `wake` is set when there are new
    ones.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._leases: dict[str, _Lease] = {}
        self._is_shared = False
        self.requests: dict[str, float] = {}
        self.wake = asyncio.Event()

    def prepare(self, key: str) -> None:
        """Have the lease asked for, unless it is held, asked for, or was denied a moment ago."""
        now = self._clock()
        lease = self._leases.get(key)
        if self._is_shared and (lease is None or now >= lease.until - self._margin(lease)):
            self._leases[key] = _Lease(_State.REQUESTED, now + _ANSWER_SECONDS)
            self._request(key, IDLE_SECONDS)

    def may_probe(self, key: str, ttl: float) -> bool:
        """Whether the lease is held."""
        now = self._clock()
        if self._is_shared:
            lease = self._leases.get(key)
            is_held = lease is not None and lease.state in {_State.IDLE, _State.PROBING}
            if lease is None or not is_held or now >= lease.until - _MARGIN:
                self.prepare(key)
                return False
            self._request(key, ttl)
        self._leases[key] = _Lease(_State.PROBING, now + ttl)
        return True

    def ended(self, key: str, *, again: bool) -> None:
        """Keep the lease for a moment, or give it back."""
        lease = self._leases.pop(key, None)
        if not self._is_shared or lease is None or lease.state is _State.DENIED:
            return
        if again and lease.state is not _State.REQUESTED:
            self._leases[key] = _Lease(_State.IDLE, self._clock() + IDLE_SECONDS)
        self._request(key, IDLE_SECONDS if key in self._leases else 0.0)

    # The other side: whoever carries out the requests.

    def share(self, *, is_shared: bool) -> None:
        """The store has come or gone. Probes that are out are made known to it."""
        self._is_shared = is_shared
        now = self._clock()
        self.requests.clear()
        self._leases = {key: lease for key, lease in self._leases.items() if lease.state is _State.PROBING}
        if is_shared:
            for key, lease in self._leases.items():
                if lease.until > now:
                    self._request(key, lease.until - now)

    def answered(self, key: str, seconds: float, sent: float, others: float) -> None:
        """The lease was asked for at `sent`, for `seconds`; it is another replica's for `others` seconds, or ours."""
        lease = self._leases.get(key)
        if lease is None or lease.state is _State.DENIED:
            if not others and key not in self.requests:
                self._request(key, 0.0)
        elif others:
            # A probe that is out is not called back.
            self._leases[key] = _Lease(_State.DENIED, self._clock() + min(others, _DENIED_SECONDS))
        elif lease.state is _State.REQUESTED:
            self._leases[key] = _Lease(_State.IDLE, sent + seconds)

    def sweep(self) -> None:
        """Forget what is over."""
        now = self._clock()
        for key in [key for key, lease in self._leases.items() if now >= lease.until]:
            del self._leases[key]

    def held(self) -> list[str]:
        """The leases that this replica holds or has asked for."""
        return [key for key, lease in self._leases.items() if lease.state is not _State.DENIED]

    def _margin(self, lease: _Lease) -> float:
        return 0.0 if lease.state in {_State.REQUESTED, _State.DENIED} else _MARGIN

    def _request(self, key: str, seconds: float) -> None:
        if len(self.requests) < _MAX_REQUESTS or key in self.requests:
            self.requests[key] = seconds
            self.wake.set()
