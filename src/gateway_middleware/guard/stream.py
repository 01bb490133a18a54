"""A guarded stream: events go through windows, and on once guards have seen their text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.core.sse import MAX_EVENT_BYTES, EventSplitter, split_events
from gateway_middleware.guard.texts import OtherEvent, TextEvent, read_event
from gateway_middleware.guard.window import TextWindow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from gateway_middleware.guard.port import Part
    from gateway_middleware.guard.texts import Key

    Check = Callable[[Part, str], Awaitable[str | None]]
    """Shows text to guards; what takes its place, or None. Raises what refuses the stream."""
    Window = TextWindow[TextEvent | OtherEvent]


class GuardedStream:
    """Takes the bytes of an event stream and gives back what may go to the client.

    Nothing that has an order overtakes text: before an event that ends a text, all that is held is shown and goes. The
    last events of a Responses stream repeat its texts: they are repeated as the client has got them.
    """

    def __init__(self, check: Check, *, window: int, overlap: int) -> None:
        self._check = check
        self._size, self._overlap = window, overlap
        self._splitter = EventSplitter(MAX_EVENT_BYTES)
        self._windows: dict[Key, Window] = {}
        self._parts: dict[Key, Part] = {}
        self._came: dict[Key, list[str]] = {}
        self._went: dict[Key, list[str]] = {}

    async def feed(self, chunk: bytes) -> bytes:
        """What may go now."""
        whole = self._splitter.feed(chunk)
        return await self._pass(whole) if whole else b""

    async def finish(self) -> bytes:
        """What is left when the stream has ended."""
        rest = self._splitter.finish()
        return (await self._pass(rest) if rest else b"") + await self._flush()

    async def _pass(self, whole: bytes) -> bytes:
        events = [event for raw in split_events(whole) for event in read_event(raw)]
        return b"".join([await self._take(event) for event in events])

    async def _take(self, event: TextEvent | OtherEvent) -> bytes:
        if isinstance(event, TextEvent):
            return await self._hold(event)
        window = None if event.key is None else self._windows.get(event.key)
        if window is not None:
            window.add(event, None)
            return b""
        flushed = b"" if event.is_silent or event.key is not None else await self._flush()
        return flushed + event.written(self._replaced())

    async def _hold(self, event: TextEvent) -> bytes:
        before = b""
        window = self._windows.get(event.key)
        if window is None:
            before = await self._flush([key for key in self._windows if event.ends(key)])
            window = self._windows[event.key] = TextWindow(self._size, self._overlap)
            self._parts[event.key] = event.part
        if event.is_repeated:
            self._came.setdefault(event.key, []).append(event.text)
        return before + (await self._show(event.key, window, is_final=False) if window.add(event, event.text) else b"")

    async def _flush(self, keys: Iterable[Key] | None = None) -> bytes:
        """Show and let go what is held of these texts, of all where none are given."""
        ended = list(self._windows) if keys is None else keys
        return b"".join([await self._show(key, self._windows.pop(key), is_final=True) for key in ended])

    async def _show(self, key: Key, window: Window, *, is_final: bool) -> bytes:
        text = window.text
        replacement = await self._check(self._parts[key], text) if text else None
        released = window.release(replacement, is_final=is_final)
        if key in self._came:
            self._went.setdefault(key, []).extend(text or "" for _, text in released)
        return b"".join([_written(event, text) for event, text in released])

    def _replaced(self) -> dict[str, str]:
        """Whole texts of the stream that are others by now, with what they are."""
        texts = {"".join(came): "".join(self._went.get(key, ())) for key, came in self._came.items()}
        return {came: went for came, went in texts.items() if came != went}


def _written(event: TextEvent | OtherEvent, text: str | None) -> bytes:
    return event.written(text or "") if isinstance(event, TextEvent) else event.written({})
