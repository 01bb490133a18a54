"""The public keys by which tokens are verified: fetched, kept, and fetched again when they change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.core.errors import UnavailableError
from gateway_middleware.core.fetch import FetchError
from gateway_middleware.core.single_flight import SingleFlight

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Clock

FRESH_SECONDS = 300.0
"""After which they are fetched again, in the background."""
STALE_SECONDS = 86_400.0
"""For how long they are used while they cannot be fetched."""
MIN_INTERVAL = 30.0
"""Between two fetches for a key id that is not among them."""
_FIRST_RETRY = 1.0


class VerificationKey(msgspec.Struct, frozen=True):
    """A public key, its id, and the algorithms whose signatures it verifies."""

    kid: str | None
    key: Any
    algorithms: tuple[str, ...]


class Jwks:
    """The keys of one issuer. `fetch` brings the document, `read` makes keys of it and raises `ValueError`.

    `on_change` is called when other keys have come, `on_failure` with the reason when none could be fetched.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[bytes]],
        read: Callable[[bytes], Sequence[VerificationKey]],
        *,
        clock: Clock,
        random: Callable[[], float],
        on_change: Callable[[], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self._fetch = fetch
        self._read = read
        self._clock = clock
        self._random = random
        self._on_change = on_change
        self._on_failure = on_failure
        self._flight: SingleFlight[None, None] = SingleFlight()
        self._document = b""
        self._keys: Sequence[VerificationKey] = ()
        self._failures = 0
        self._fetched_at = self._refresh_at = self._tried_at = float("-inf")

    async def find(self, kid: str | None) -> VerificationKey | None:
        """The key of this id; without an id, the only one there is; None where the issuer has none.

        Raises `UnavailableError` where that cannot be known: there are no keys, or a new one could not be asked for.
        """
        if self._is_too_old():
            await self._refresh(max(_FIRST_RETRY, self._pause()))
        elif self._clock() >= self._refresh_at and self._may_try(self._pause()):
            self._flight.start(None, self._work)
        if self._is_too_old():
            raise _unavailable()
        key = self._look_up(kid)
        if key is None:
            await self._refresh(self._pause() or MIN_INTERVAL)
            key = self._look_up(kid)
            if key is None and self._failures:
                raise _unavailable()
        return key

    async def aclose(self) -> None:
        """Stop a fetch that is under way."""
        await self._flight.aclose()

    def _is_too_old(self) -> bool:
        return self._clock() - self._fetched_at > STALE_SECONDS

    def _pause(self) -> float:
        """Between two tries: longer with each failure."""
        return float(min(MIN_INTERVAL, _FIRST_RETRY * 2 ** min(self._failures - 1, 8))) if self._failures else 0.0

    def _may_try(self, interval: float) -> bool:
        return self._clock() - self._tried_at >= interval

    async def _refresh(self, interval: float) -> None:
        """Fetch, unless that was tried within so many seconds; who comes while a fetch is under way waits for it."""
        if self._flight.is_under_way(None) or self._may_try(interval):
            await self._flight(None, self._work)

    async def _work(self) -> None:
        self._tried_at = self._clock()
        try:
            document = await self._fetch()
            keys = self._keys if document == self._document else self._read(document)
        except (FetchError, ValueError) as error:
            self._failures += 1
            self._on_failure(str(error))
            return
        self._failures = 0
        self._fetched_at = self._clock()
        self._refresh_at = self._fetched_at + FRESH_SECONDS * (0.8 + 0.4 * self._random())
        if keys is not self._keys:
            self._keys, self._document = keys, document
            self._on_change()

    def _look_up(self, kid: str | None) -> VerificationKey | None:
        if kid is None:
            return self._keys[0] if len(self._keys) == 1 else None
        return next((key for key in self._keys if key.kid == kid), None)


def _unavailable() -> UnavailableError:
    return UnavailableError(
        "The keys of the token issuer cannot be fetched.", code="token_issuer_unavailable", retry_after=1.0
    )
