"""The lines of headers of answers: what depends on the names alone is worked out once."""

from __future__ import annotations

import re
from typing import NamedTuple

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH = b"content-length"
_MAX_FORMS = 512
OF_THE_PROTOCOL = frozenset({b"transfer-encoding", b"connection"})
"""Headers (in lower case) that the protocol writes itself, whatever an application says of them."""


class HeadForm(NamedTuple):
    """The lines of headers with these names: `lines % values` are those of one answer."""

    lines: bytes
    length_at: int | None
    """Which of the values is the length of the body."""
    has_own: bool
    """Whether there are headers that the protocol writes itself."""


class HeadForms:
    """The forms of one server, by the names of headers as applications write them. A full table starts again."""

    __slots__ = ("_forms",)

    def __init__(self) -> None:
        self._forms: dict[tuple[bytes, ...], HeadForm] = {}

    def __len__(self) -> int:
        return len(self._forms)

    def of(self, names: tuple[bytes, ...]) -> HeadForm:
        """The form for these names. Raises `RuntimeError` for one that is none, and for a second length."""
        form = self._forms.get(names)
        return self._add(names) if form is None else form

    def _add(self, names: tuple[bytes, ...]) -> HeadForm:
        form = _form(names)
        if len(self._forms) >= _MAX_FORMS:
            self._forms.clear()
        self._forms[names] = form
        return form


def _form(names: tuple[bytes, ...]) -> HeadForm:
    if not all(map(_NAME.fullmatch, names)):
        raise RuntimeError("Invalid HTTP header name.")
    lower = [name.lower() for name in names]
    if lower.count(_LENGTH) > 1:
        raise RuntimeError("Response with more than one Content-Length")
    return HeadForm(
        lines=b"".join([name.replace(b"%", b"%%") + b": %b\r\n" for name in lower]),
        length_at=lower.index(_LENGTH) if _LENGTH in lower else None,
        has_own=not OF_THE_PROTOCOL.isdisjoint(lower),
    )
