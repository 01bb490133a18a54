"""The head of the request before, on one connection: most clients send it again, but for the length of the body."""

from __future__ import annotations

import re
from typing import Any

from gateway_middleware.serving.http.head import LENGTH, RequestHead

_MAX_BYTES = 2048
"""Longer heads are read anew each time: every connection keeps its last one."""
_LINE = b"\r\ncontent-length:"
_VALUE = re.compile(rb"[ \t]*([0-9]+)[ \t]*\r\n")


class LastHead:
    """What a head with a length was found to say; `repeat` says the same of one that differs in the length only.

    Nothing but equality of bytes is relied on, so a head is never read in another way than the first time.
    """

    __slots__ = ("_after", "_at", "_before", "_head", "_headers", "_scope")

    def __init__(self) -> None:
        self._before = self._after = b""  # of the digits of the length
        self._at = 0  # the place of the length among the headers
        self._head: RequestHead | None = None
        self._headers: tuple[tuple[bytes, bytes], ...] = ()  # applications may change the list that they are given
        self._scope: dict[str, Any] = {}

    def remember(self, raw: bytes, head: RequestHead, scope: dict[str, Any]) -> None:
        """Keep what `raw` was found to say, if it has a length."""
        self._head = None
        line = raw.lower().find(_LINE) if len(raw) <= _MAX_BYTES else -1
        value = None if line < 0 else _VALUE.match(raw, line + len(_LINE))
        if value is not None:
            self._before, self._after = raw[: value.start(1)], raw[value.end(1) :]
            self._at = [name for name, _ in head.headers].index(b"content-length")
            self._head, self._headers, self._scope = head, tuple(head.headers), scope.copy()

    def repeat(self, raw: bytes, state: dict[str, Any]) -> tuple[RequestHead, dict[str, Any]] | None:
        """What `raw` says, and the scope of its request, if it is the same head; else None."""
        before, after, head = self._before, self._after, self._head
        if head is None or not (raw.startswith(before) and raw.endswith(after)):
            return None
        digits = raw[len(before) : len(raw) - len(after)]
        if not LENGTH.fullmatch(digits):
            return None
        head.content_length = int(digits)
        head.headers = headers = list(self._headers)
        headers[self._at] = (b"content-length", digits)
        scope = self._scope.copy()
        scope["headers"] = headers
        scope["state"] = state.copy()
        return head, scope
