"""Deltas that are alike but for their text, translated together.

Nearly every event of a stream repeats the one before it, but for a short text. Where the bytes around the text are
equal and the text is the inside of a JSON string, the event says what the one before it said, with another text: so its
string, as it stands, goes between the bytes that the client's dialect has around it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import repeat, takewhile
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from gateway_middleware.translation.context import StreamDecoder, StreamEncoder

_MAX_CREDIT = 32
_COST_OF_LEARNING = 4
"""In events that were decoded alone, about."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(str).decode


class _Filler(msgspec.Struct, frozen=True):
    """What some vendors add before the last brace of an event, in varying length, against those who count bytes."""

    mark: bytes
    found: Callable[[bytes, bytes], bytes]
    last: bytes

    def strip(self, events: bytes) -> bytes:
        return self.found(self.last, events)


_FILLERS = (
    _Filler(b',"obfuscation":"', re.compile(rb',"obfuscation":"\w*"\}\n\n').sub, b"}\n\n"),
    _Filler(b" }\n\n", re.compile(rb"\} +\}\n\n").sub, b"}}\n\n"),
)
"""A brace before a blank line is the outermost one: no string goes over a line, and no event over a blank one."""


class _Form(msgspec.Struct, frozen=True):
    """What stands around the text, as it comes and as it is written; `notes` are told the text of a run."""

    before: bytes
    after: bytes
    filler: _Filler | None
    written_before: bytes
    written_after: bytes
    notes: tuple[Callable[[str], object], ...]

    def texts(self, pieces: list[bytes]) -> list[bytes] | None:
        """What stands between, where it is not empty, in events without what is after it; None: not all are alike."""
        texts = list(map(bytes.removeprefix, pieces, repeat(self.before)))
        if sum(map(len, pieces)) - sum(map(len, texts)) != len(pieces) * len(self.before) or not _are_strings(texts):
            return None
        return list(filter(None, texts))

    def is_alike(self, piece: bytes) -> bool:
        return self.texts([piece]) is not None

    def note(self, texts: list[bytes]) -> None:
        if self.notes:
            said = _decode(b'"%b"' % b"".join(texts))
            for note in self.notes:
                note(said)


class AlikeDeltas:
    """Knows the form of the last delta of a stream and takes the events that repeat it.

    It gives up where a form is soon followed by another one, as where two choices alternate.
    """

    __slots__ = ("_credit", "_decoder", "_encoder", "_form")

    def __init__(self, decoder: StreamDecoder, encoder: StreamEncoder) -> None:
        self._decoder = decoder
        self._encoder = encoder
        self._form: _Form | None = None
        self._credit = _MAX_CREDIT

    @property
    def is_looking(self) -> bool:
        """Whether it is worth while to show it single events."""
        return self._credit >= _COST_OF_LEARNING

    def learn(self, event: bytes, data: bytes) -> bool:
        """Take the form of a whole event, which has just been decoded and encoded; whether it has one."""
        self._credit -= _COST_OF_LEARNING
        self._form = self._form_of(event, data)
        return self._form is not None

    def forget(self) -> None:
        """An event of another form has come: what the next one of this form says is open."""
        self._form = None

    def take(self, events: bytes, written: list[bytes]) -> bytes:
        """Translate the events at the beginning that have the form; returns what is left."""
        form = self._form
        if form is None or not events.startswith(form.before):
            return events
        plain = events if form.filler is None else form.filler.strip(events)
        pieces = plain.split(form.after)
        rest = pieces.pop()
        texts = form.texts(pieces)
        if texts is None:
            pieces = list(takewhile(form.is_alike, pieces))
            texts = form.texts(pieces) or []
            rest = plain[sum(map(len, pieces)) + len(pieces) * len(form.after) :]
        if texts:
            form.note(texts)
            self._credit = min(_MAX_CREDIT, self._credit + len(texts))
            between = form.written_after + form.written_before
            written += (form.written_before, between.join(texts), form.written_after)
        return rest if pieces else events

    def _form_of(self, event: bytes, data: bytes) -> _Form | None:
        repeated = self._decoder.repeats(data)
        around = None if repeated is None else self._encoder.around(repeated.delta)
        if repeated is None or around is None:
            return None
        token = _encode(repeated.text)
        if event.count(token) != 1 or not event.endswith(b"\n\n") or not self._is_the_text(token, repeated.text, data):
            return None
        filler = _filler_of(event)
        plain = event if filler is None else filler.strip(event)
        before, after = plain.split(token)
        notes = tuple(note for note in (repeated.note, around.note) if note is not None)
        return _Form(before + b'"', b'"' + after, filler, around.before, around.after, notes)

    def _is_the_text(self, token: bytes, text: str, data: bytes) -> bool:
        """Whether another string in place of this one changes the text."""
        other = text + "~"
        repeated = self._decoder.repeats(data.replace(token, _encode(other)))
        return repeated is not None and repeated.text == other


def _filler_of(event: bytes) -> _Filler | None:
    return next((filler for filler in _FILLERS if filler.mark in event and filler.strip(event) != event), None)


def _are_strings(texts: list[bytes]) -> bool:
    """Whether each is the inside of a JSON string: a blank between two completes nothing that is cut off."""
    try:
        _decode(b'"%b"' % b" ".join(texts))
    except ValueError:
        return False
    return True
