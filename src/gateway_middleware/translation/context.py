"""What an answer's translation must know of its request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gateway_middleware.core.domain import Usage
from gateway_middleware.translation.events import Delta, Event
from gateway_middleware.translation.vocabulary import Answer

if TYPE_CHECKING:
    from collections.abc import Iterable


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """`has_answer_tool`: the output format was asked for as a tool, whose call is the text of the answer.

    `free_form` are the names of tools that take any text, where the provider's tools take JSON. `estimated_input` is
    how many tokens the prompt may have. `created` is in seconds since the epoch. `request` is the client's body, for an
    answer that repeats its options.
    """

    created: int
    wants_usage: bool = False
    has_answer_tool: bool = False
    free_form: frozenset[str] = frozenset()
    estimated_input: int = 0
    request: dict[str, Any] = msgspec.field(default_factory=dict)


class Repeated(msgspec.Struct, frozen=True):
    """A delta that data says over and over with other texts. `note` takes the text of all that were not decoded."""

    delta: Delta
    text: str
    note: Callable[[str], object] | None = None


class Around(msgspec.Struct, frozen=True):
    """What is written around the inside of a delta's JSON string. `note` takes the text that was not encoded."""

    before: bytes
    after: bytes
    note: Callable[[str], object] | None = None


class StreamDecoder(Protocol):
    """Reads one vendor's stream, event by event."""

    def decode(self, data: bytes) -> Iterable[Event]:
        """What the data of one event says. Raises `UpstreamProtocolError` for what is none of the format."""
        ...

    def repeats(self, data: bytes) -> Repeated | None:
        """The delta that this data says, which was decoded last, if it says nothing else.

        Until other data is decoded, data that differs in nothing but that text says the same delta with its text, and
        nothing where that is empty. Changes nothing.
        """
        ...

    def finish(self) -> Iterable[Event]:
        """What is left to say at the end of a complete stream."""
        ...


class StreamEncoder(Protocol):
    """Writes one dialect's stream."""

    def encode(self, event: Event, usage: Usage | None) -> bytes:
        """The server-sent events for one event; `usage` is all that is known of it by now."""
        ...

    def around(self, delta: Delta) -> Around | None:
        """How more deltas of the kind that was encoded last are written; None where each is written differently."""
        ...

    def take_rest(self) -> Iterable[bytes]:
        """What follows the last events: long ones, which are written piece by piece as they are taken."""
        ...


class AnswerDecoder(Protocol):
    def __call__(self, body: bytes, context: Context, /) -> Answer:
        """Raises `UpstreamProtocolError` for what is no answer of the format."""
        ...


class AnswerEncoder(Protocol):
    def __call__(self, answer: Answer, context: Context, /) -> bytes: ...
