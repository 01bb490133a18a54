"""How many tokens an answer was, where the provider never said: the client left, or the stream broke.

Words, digits, punctuation and other characters are counted and weighed; that comes closer than bytes per token, and
needs no tokenizer. The weights were fitted to recorded answers whose text and usage are both known. What a model
thought without showing it is in no estimate.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from gateway_middleware.core.domain import Surface

_decode_text = msgspec.json.Decoder(str).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

_LETTER, _DIGIT, _BLANK, _MARK, _OTHER = b"a0 .~"
_CONTINUATION = bytes(range(0x80, 0xC0))


def _class_of(byte: int) -> int:
    character = chr(byte)
    if byte >= 0x80:
        return _OTHER
    if character.isalpha():
        return _LETTER
    if character.isdigit():
        return _DIGIT
    return _BLANK if character.isspace() else _MARK


_CLASSES = bytes(_class_of(byte) for byte in range(256))
_WORDS = bytes(_LETTER if cls == _LETTER else _BLANK for cls in _CLASSES)


class Weights(NamedTuple):
    """Tokens for each word, digit, mark and character beyond ASCII, for each call of a tool, and `message` for all.

    `first_call` is once for having any call. `has_single_deltas`: an event of few bytes is one token.
    """

    word: float
    digit: float
    mark: float
    other: float
    call: float
    first_call: float
    message: int = 0
    has_single_deltas: bool = False


_OPENAI = Weights(1.09, 0.92, 0.63, 1.0, 24.0, -16.0, has_single_deltas=True)
_CLAUDE = Weights(1.18, 0.96, 0.83, 1.5, 31.0, 10.0, 3)
_CLAUDE_5 = Weights(1.68, 1.36, 1.18, 2.13, 44.0, 14.0, 4)
"""Its tokenizer, in use since Opus 4.7, makes about 1.4 times as many tokens of the same text."""
_DENSE_CLAUDES = ("claude-opus-4-7", "claude-opus-4-8")
_MAX_BYTES_OF_SINGLE = 8


def weights_of(model: str) -> Weights:
    """The weights for a model, by its name; those of OpenAI where the name says nothing."""
    if "claude" not in model:
        return _OPENAI
    name = model[model.index("claude") :]
    is_fifth = name.split("-")[2:3] == ["5"] and not name.startswith("claude-3")
    return _CLAUDE_5 if is_fifth or name.startswith(_DENSE_CLAUDES) else _CLAUDE


class _Counts:
    """What a text is made of."""

    __slots__ = ("digits", "marks", "others", "words")

    def __init__(self) -> None:
        self.words = self.digits = self.marks = self.others = 0

    def add(self, text: bytes) -> None:
        if text.strip().isalpha():
            self.words += 1
            return
        self.words += len(text.translate(_WORDS).split())
        classes = text.translate(_CLASSES, _CONTINUATION)
        self.digits += classes.count(b"0")
        self.marks += classes.count(b".")
        self.others += classes.count(b"~")

    def tokens(self, weights: Weights, *, split_words: int = 0) -> int:
        exact = (
            (self.words - split_words) * weights.word
            + self.digits * weights.digit
            + self.marks * weights.mark
            + self.others * weights.other
        )
        return max(round(exact), 1) if exact > 0 else 0


class _Format(NamedTuple):
    """Where the text is in the events of a surface. No string of JSON can hold these needles: its quotes are escaped.

    `beside` is in the event that begins a call of a tool, and `calls` once for each call in the same event.
    """

    text: tuple[bytes, ...]
    beside: bytes = b"\0"
    calls: bytes = b"\0"


_ARGUMENTS = b'"arguments":"'
_FORMATS = {
    Surface.CHAT: _Format(
        (b'"content":"', _ARGUMENTS, b'"reasoning_content":"', b'"refusal":"'), b'"tool_calls":[', b'"name":"'
    ),
    Surface.COMPLETIONS: _Format((b'"text":"',)),
    Surface.RESPONSES: _Format((b'"delta":"',), b'"response.output_item.added"', b'"type":"function_call"'),
    Surface.MESSAGES: _Format(
        (b'"text":"', b'"partial_json":"', b'"thinking":"'), b'"content_block_start"', b'"type":"tool_use"'
    ),
}
_BACKSLASH = ord("\\")


class OutputEstimate:
    """Counts the text in an event stream while it passes. Holds counters only, never text.

    `feed` takes whole events, one or many, or only their data; of a large one, pieces. What it cannot read it passes
    over: of an event that was cut elsewhere than in a text, one half may be missed, and of one event with text of two
    kinds, the second kind. Hidden reasoning and encrypted content are not counted, nor is any surface that is not text.
    """

    __slots__ = (
        "_counts",
        "_format",
        "_is_open",
        "_likely",
        "_rests",
        "_singles",
        "_weights",
        "calls",
        "deltas",
        "text_bytes",
    )

    def __init__(self, surface: Surface, *, model: str) -> None:
        self._format = _FORMATS.get(surface, _Format(()))
        self._likely = self._format.text[0] if self._format.text else b"\0"
        self._weights = weights_of(model)
        self._counts = _Counts()
        self._singles = self._rests = 0
        self._is_open = False  # whether the last text goes on in the next chunk
        self.text_bytes = 0
        """Bytes of text that were delivered, unescaped."""
        self.deltas = 0
        """Pieces of text that were delivered."""
        self.calls = 0
        """Calls of tools that were begun."""

    def feed(self, chunk: bytes) -> None:
        """Count the text of some events."""
        if self._is_open:
            self._is_open = False
            self._take(chunk, 0)
        if not self._read(chunk) and chunk.rfind(b'": ') >= 0:
            for line in chunk.splitlines():  # written with blanks, as the providers do not
                self._read(_compact(line) or line.replace(b'": "', b'":"'))

    def _read(self, chunk: bytes) -> bool:
        """Whether there was text, or a call, in JSON as the providers write it."""
        likely, format_ = self._likely, self._format
        is_found = self._take_all(chunk, likely)
        if is_found and chunk.rfind(b"\n\n", 0, -2) < 0:
            return True
        for needle in format_.text:
            if needle is not likely and self._take_all(chunk, needle):
                is_found = True
                if needle is not _ARGUMENTS:
                    self._likely = needle
        if chunk.rfind(format_.beside) >= 0:
            is_found = self._count_calls(chunk) or is_found
        return is_found

    def _take_all(self, chunk: bytes, needle: bytes) -> bool:
        """Count the JSON strings that follow a needle, from behind, which is twice as fast. Whether there were any."""
        deltas = self.deltas
        at = chunk.rfind(needle)
        while at >= 0:
            self._take(chunk, at + len(needle))
            at = chunk.rfind(needle, 0, at)
        return self.deltas > deltas

    def _take(self, chunk: bytes, begin: int) -> None:
        """Count the JSON string that begins here; it ends with the chunk where it has no end."""
        end = chunk.find(b'"', begin)
        while end > begin and chunk[end - 1] == _BACKSLASH and _is_escaped(chunk, begin, end):
            end = chunk.find(b'"', end + 1)
        self._is_open = self._is_open or end < 0
        text = chunk[begin:end] if end >= 0 else chunk[begin:]
        if not text:
            return
        if b"\\" in text:
            text = _unescaped(text)
        self.deltas += 1
        self.text_bytes += len(text)
        if self._weights.has_single_deltas and len(text) <= _MAX_BYTES_OF_SINGLE:
            self._singles += 1
        else:
            self._counts.add(text)
            self._rests += text[:1].isalpha()

    def _count_calls(self, chunk: bytes) -> bool:
        begun = sum(line.count(self._format.calls) for line in chunk.splitlines() if self._format.beside in line)
        self.calls += begun
        return begun > 0

    @property
    def tokens(self) -> int:
        """About how many tokens were delivered."""
        weights, calls = self._weights, self.calls
        if not self.deltas and not calls:
            return 0
        overhead = weights.message + (round(weights.call * calls + weights.first_call) if calls else 0)
        # all pieces but the first that begin with a letter go on with a word
        counted = self._singles + self._counts.tokens(weights, split_words=max(self._rests - 1, 0))
        return overhead + max(counted, self.deltas)


def _is_escaped(chunk: bytes, begin: int, end: int) -> bool:
    """Whether an odd number of backslashes stands before `end`."""
    text = chunk[begin:end]
    return (len(text) - len(text.rstrip(b"\\"))) % 2 == 1


def _unescaped(text: bytes) -> bytes:
    """The text that a JSON string stands for, without an escape (or half a pair of them) that is cut at its end."""
    whole = text
    for _ in range(3):
        try:
            return _decode_text(b'"' + whole + b'"').encode("utf-8", "surrogatepass")
        except ValueError:
            whole = whole[: max(whole.rfind(b"\\"), 0)]
    return text


def _compact(line: bytes) -> bytes:
    """The data of a line as JSON without blanks between its parts; empty where there is none."""
    try:
        return _encode(_decode_any(line.removeprefix(b"data:")))
    except (ValueError, RecursionError):
        return b""
