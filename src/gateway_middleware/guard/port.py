"""What a guard is: a callable that is shown a prompt, an answer, or a piece of a stream, and gives a verdict."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Protocol

import msgspec

from gateway_middleware.core.errors import PermissionDeniedError


class Stage(StrEnum):
    """What a guard is shown."""

    REQUEST = "request"
    """The JSON body of a request."""
    ANSWER = "answer"
    """The JSON body of a whole answer."""
    STREAM = "stream"
    """Text of a stream: what has come since the last verdict, behind the end of what was passed on before."""


class Part(StrEnum):
    """Which part of a prompt or an answer is shown."""

    BODY = "body"
    """All of it, as JSON."""
    TEXT = "text"
    """What the model writes, or thinks."""
    TOOL_ARGUMENTS = "tool_arguments"
    """What a tool is called with: a piece of JSON, or of the text that a custom tool takes."""


class Guarded(msgspec.Struct, frozen=True, kw_only=True):
    """What a guard is shown: `content`, and whose it is. `dialect` and `surface` say how a JSON body is to be read."""

    stage: Stage
    part: Part
    content: str
    tenant: str
    model: str
    surface: str
    dialect: str
    request_id: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`content` takes the place of what was shown (`replace`); `reason` is for the client (`refuse`) and the log."""

    action: Literal["pass", "replace", "refuse"] = "pass"
    content: str = ""
    reason: str = ""


PASS = Verdict()


class Guard(Protocol):
    """May raise, and may take as long as it likes: deadline and what a failure means belong to its rule."""

    async def __call__(self, guarded: Guarded, /) -> Verdict: ...


class GuardRefusedError(PermissionDeniedError):
    """A guard has refused a prompt or an answer."""

    code = "guard_refused"
