"""A simulated answer before any fault is put into it: a whole body, or the events of a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from gateway_middleware.core.domain import Dialect
from gateway_middleware.simulator.behaviour import Behaviour
from gateway_middleware.simulator.parameters import Parameters
from gateway_middleware.simulator.words import Reply, Spent

JSON = b"application/json"
EVENTS = b"text/event-stream; charset=utf-8"
encode = msgspec.json.Encoder().encode


class Stream(msgspec.Struct, kw_only=True):
    """The pieces of a streamed body, in order. `content` is what faults count; it may be endless.

    `opening`: lifecycle frames. `lead`: frames that belong to the first content. `error` makes an error event.
    `broken`: an event that no parser takes.
    """

    opening: bytes = b""
    lead: Iterable[bytes] = ()
    content: Iterable[bytes]
    closing: Iterable[bytes] = ()
    error: Callable[[], bytes] = bytes
    ping: bytes = b": ping\n\n"
    broken: bytes = b'data: {"id": "broken, "choices": [{"delta"\n\n'


class Answer(msgspec.Struct, kw_only=True):
    """What a provider would answer."""

    status: int = 200
    content_type: bytes = JSON
    body: bytes = b""
    stream: Stream | None = None
    headers: tuple[tuple[str, str], ...] = ()


class Task(msgspec.Struct, kw_only=True):
    """One call to be answered well."""

    provider: Dialect
    kind: str
    model: str
    parameters: Parameters
    behaviour: Behaviour
    spent: Spent
    reply: Reply
    number: str
    """Makes ids of this answer."""
    created: int
    account: str = ""
    """Whose answer it is, where each credential is an account of its own."""

    @property
    def usage(self) -> Spent | None:
        """What is reported."""
        return self.spent if self.behaviour.usage else None

    @property
    def is_azure(self) -> bool:
        """Whether Azure's additions belong to it."""
        return self.provider is Dialect.AZURE

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The tools to call, one for each call."""
        offered = [] if self.parameters.has_tool_result else self.parameters.tools or []
        return [offered[at % len(offered)] for at in range(self.behaviour.tool_calls)] if offered else []


def data_frame(document: Any) -> bytes:
    """An event without a name."""
    return b"data: " + encode(document) + b"\n\n"


def event_frame(document: dict[str, Any]) -> bytes:
    """An event named by its `type`."""
    name: str = document["type"]
    return b"event: %b\ndata: %b\n\n" % (name.encode(), encode(document))


def fragments(text: str, size: int = 8) -> list[str]:
    """A text in short pieces."""
    return [text[at : at + size] for at in range(0, len(text), size)]


MARK = "\x00text\x00"
_MARK = encode(MARK)


def around_mark(frame: bytes) -> tuple[bytes, bytes]:
    """What stands before and after the JSON string `MARK` in a frame: a template for text."""
    before, _, after = frame.partition(_MARK)
    return before, after
