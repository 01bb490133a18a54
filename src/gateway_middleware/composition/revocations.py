"""Keys that a reload of any process has taken away: they are refused by all, whatever their configurations list."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.core.errors import PathNotFoundError

if TYPE_CHECKING:
    from gateway_middleware.composition.fleet import Fleet
    from gateway_middleware.composition.log import Log
    from gateway_middleware.fleet.entries import Entry
    from gateway_middleware.operations.admin import Requester

KIND = "key"
_GIVEN_BACK_SECONDS = 400 * 86400.0
"""For how long it is remembered that a key was given back, for stores and processes that have missed it."""
_MICROSECONDS = 1_000_000


class KeyState(msgspec.Struct, frozen=True):
    """What is said of a key, which is known by its digest. `by` names the process."""

    is_revoked: bool
    by: str


_decode = msgspec.json.Decoder(KeyState).decode


class Revocations:
    """The digests of revoked keys. `on_change` is called, after each change, by whoever looks at `digests`."""

    def __init__(self, fleet: Fleet, log: Log) -> None:
        self._fleet = fleet
        self._log = log.lines
        self._digests: set[str] = set()
        self._listeners: list[Callable[[], None]] = []
        fleet.on(KIND, self._hear)

    @property
    def digests(self) -> Collection[str]:
        """All that are revoked now; the same object for as long as the gateway lives."""
        return self._digests

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call this after every change."""
        self._listeners.append(listener)

    def listing_changed(self, before: frozenset[str], after: frozenset[str]) -> None:
        """A reload has replaced the keys that this process lists.

        Those it dropped are revoked everywhere. Those it lists anew are given back: that this process ran without them
        is what tells a configuration of today from one of before the revocation.
        """
        self._say(before - after - self._digests, is_revoked=True)
        self._say((after - before) & self._digests, is_revoked=False)

    async def give_back(self, digest: str, by: Requester) -> dict[str, Any]:
        """An operator gives a key back. Raises `PathNotFoundError` where it is not revoked."""
        if digest not in self._digests:
            raise PathNotFoundError("No key with this digest is revoked.", code="unknown_revocation")
        self._log.audit("key given back", digest=digest, client=by.client, request_id=by.request_id)
        self._say([digest], is_revoked=False)
        return {"digest": digest, "is_revoked": False}

    def document(self) -> dict[str, Any]:
        """Every revoked key, the oldest first."""
        rows = [(entry, _decode(entry.body)) for entry in self._fleet.entries(KIND)]
        return {
            "revocations": [
                {
                    "digest": entry.key,
                    "since": datetime.fromtimestamp(entry.version / _MICROSECONDS, UTC),
                    "by": state.by,
                }
                for entry, state in rows
                if state.is_revoked
            ]
        }

    def _say(self, digests: Iterable[str], *, is_revoked: bool) -> None:
        seconds = None if is_revoked else _GIVEN_BACK_SECONDS
        for digest in sorted(digests):
            self._fleet.post(KIND, digest, KeyState(is_revoked, self._fleet.name), seconds=seconds)
            self._take(digest, is_revoked=is_revoked)

    def _hear(self, entry: Entry) -> None:
        state = _decode(entry.body)
        if state.is_revoked != (entry.key in self._digests):
            self._log.audit("key revoked" if state.is_revoked else "key given back", digest=entry.key, client=state.by)
            self._take(entry.key, is_revoked=state.is_revoked)

    def _take(self, digest: str, *, is_revoked: bool) -> None:
        if is_revoked:
            self._digests.add(digest)
        else:
            self._digests.discard(digest)
        for listener in self._listeners:
            listener()


def _moment(entry: Entry) -> datetime:
    return datetime.fromtimestamp(entry.version / _MICROSECONDS, UTC)
