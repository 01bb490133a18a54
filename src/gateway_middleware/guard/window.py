"""The text of a stream that is held until guards have seen it, sans-IO."""

from __future__ import annotations

from typing import Generic, TypeVar

E = TypeVar("E")


class TextWindow(Generic[E]):
    """Events with their texts, in order: one window for each text that a stream writes (a choice, a content block).

    Text is due once `size` characters have come that no guard has seen. After a verdict all but the last `overlap`
    characters may go; events are never cut, so that what stays may be a little more. A guard that looks for something
    of at most `overlap` characters finds it wherever the provider cuts its text.
    """

    __slots__ = ("_events", "_overlap", "_size", "_texts", "_unseen")

    def __init__(self, size: int, overlap: int) -> None:
        self._size = size
        self._overlap = overlap
        self._events: list[E] = []
        self._texts: list[str | None] = []
        self._unseen = 0

    @property
    def text(self) -> str:
        """All that is held."""
        return "".join([text for text in self._texts if text])

    def add(self, event: E, text: str | None) -> bool:
        """Hold an event; None: it has no text, and goes when its turn comes. Whether text has to be shown now."""
        self._events.append(event)
        self._texts.append(text)
        self._unseen += len(text or "")
        return self._unseen >= self._size

    def release(self, replacement: str | None, *, is_final: bool) -> list[tuple[E, str | None]]:
        """After a verdict: the events that may go, each with its text as it is now.

        `replacement` takes the place of all text that is held; None: it stays. What is not final keeps an end back.
        """
        self._unseen = 0
        if replacement is not None:
            self._replace(replacement)
        count = len(self._events) if is_final else self._beyond_overlap()
        released = list(zip(self._events[:count], self._texts[:count], strict=True))
        del self._events[:count], self._texts[:count]
        return released

    def _beyond_overlap(self) -> int:
        """How many events lie wholly before the end that is kept."""
        kept = 0
        for index in range(len(self._texts) - 1, -1, -1):
            if kept >= self._overlap:
                return index + 1
            kept += len(self._texts[index] or "")
        return 0

    def _replace(self, text: str) -> None:
        """The first text becomes the new one, the last its end, those between become empty: no event is lost."""
        places = [index for index, old in enumerate(self._texts) if old is not None]
        if not places:
            return
        cut = max(len(text) - self._overlap, 0)
        for index in places:
            self._texts[index] = ""
        self._texts[places[0]] = text[:cut]
        self._texts[places[-1]] = text[cut:] if len(places) > 1 else text
