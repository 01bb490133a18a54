"""What every part of a gateway has: a life, and an answer to a reload."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from gateway_middleware.settings import Settings

Commit: TypeAlias = "Callable[[], None]"
"""Takes what `prepare` has made ready. It cannot fail."""


class Part(Protocol):
    """A piece of the gateway that starts and stops with it, and may take other settings while it runs."""

    @property
    def takes(self) -> frozenset[str]:
        """The fields of `Settings` that act at once after a reload; all others wait for a restart."""
        ...

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Start, and stop at the end of the block. A start that fails leaves nothing open behind it."""
        ...

    def prepare(self, new: Settings) -> Commit:
        """Make ready what these settings change, and change nothing yet. Raises `SettingsError`."""
        ...


class Fixed:
    """A part that takes nothing from a reload."""

    takes: frozenset[str] = frozenset()

    def prepare(self, new: Settings) -> Commit:
        """Nothing changes."""
        return _nothing


class Lifeless:
    """A part that has nothing to start."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Nothing starts, nothing stops."""
        yield


def _nothing() -> None:
    """The commit of a part that takes nothing."""
