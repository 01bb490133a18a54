"""The events of a stream, in no dialect's words.

A stream is `Started`, then deltas, then `Ended`. Deltas of one kind that follow each other belong to one part; a
`PartEnded` parts two of one kind.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from gateway_middleware.translation.vocabulary import Citation, Reasoning, Stop


class Started(msgspec.Struct, frozen=True):
    """The answer begins."""

    id: str
    model: str


class TextDelta(msgspec.Struct, frozen=True):
    text: str


class RefusalDelta(msgspec.Struct, frozen=True):
    text: str


class ReasoningDelta(msgspec.Struct, frozen=True):
    text: str


class ReasoningEnded(msgspec.Struct, frozen=True):
    """A part of reasoning is whole: all of its text that came in deltas, and its proof."""

    whole: Reasoning


class CallStarted(msgspec.Struct, frozen=True):
    """A tool call begins. `index` counts the calls of this answer from 0."""

    index: int
    id: str
    name: str
    is_free_form: bool = False


class CallDelta(msgspec.Struct, frozen=True):
    """More of the arguments of a call."""

    index: int
    arguments: str


class CitationAdded(msgspec.Struct, frozen=True):
    citation: Citation


class PartEnded(msgspec.Struct, frozen=True):
    """The part that was open is whole; for a call `index` names it."""

    index: int | None = None


class Ended(msgspec.Struct, frozen=True):
    """The answer is whole."""

    stop: Stop
    stop_sequence: str | None = None


Delta: TypeAlias = "TextDelta | ReasoningDelta | CallDelta"
"""What most of a stream is."""

Event: TypeAlias = (
    "Started | TextDelta | RefusalDelta | ReasoningDelta | ReasoningEnded | CallStarted | CallDelta | CitationAdded"
    " | PartEnded | Ended"
)
