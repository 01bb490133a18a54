"""Calls of free-form tools, where a provider only has tools that take JSON: `{"input": "..."}`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from gateway_middleware.translation.vocabulary import ToolCall

if TYPE_CHECKING:
    from gateway_middleware.translation.fields import Losses
    from gateway_middleware.translation.vocabulary import Conversation, Part, Tool

FREE_FORM_SCHEMA = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
"""What a free-form tool takes where every tool takes JSON."""

_START = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_CUT_ESCAPE = re.compile(r"(?:^|[^\\])(?:\\\\)*(\\(?:u[0-9a-fA-F]{0,3})?)$")
_HIGH_SURROGATE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?$")
_END = re.compile(r'(?:[^"\\]|\\.)*"', re.DOTALL)
_decode = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


class _Wrapped(msgspec.Struct):
    input: str


_decode_wrapped = msgspec.json.Decoder(_Wrapped).decode


def as_functions(conversation: Conversation, losses: Losses) -> Conversation:
    """The conversation with functions in the place of its free-form tools."""
    messages = tuple(
        replace(message, parts=tuple(map(_as_function_call, message.parts))) for message in conversation.messages
    )
    return replace(conversation, messages=messages, tools=tuple(_as_function(t, losses) for t in conversation.tools))


def _as_function(tool: Tool, losses: Losses) -> Tool:
    if not tool.is_free_form:
        return tool
    if tool.form is not None and tool.form.get("type") != "text":
        losses.drop("tool.form")
    return replace(tool, is_free_form=False, form=None, schema=FREE_FORM_SCHEMA)


def _as_function_call(part: Part) -> Part:
    if not isinstance(part, ToolCall) or not part.is_free_form:
        return part
    return replace(part, is_free_form=False, arguments=_encode({"input": part.arguments}).decode())


def unwrap(arguments: str) -> str:
    """The text inside; the arguments themselves where they have another form."""
    try:
        return _decode_wrapped(arguments).input
    except (ValueError, RecursionError):
        return arguments


class Unwrapper:
    """The same for arguments that come in pieces, each passed on at once as far as it is whole."""

    __slots__ = ("_has_started", "_is_over", "_rest")

    def __init__(self) -> None:
        self._rest = ""
        self._has_started = False
        self._is_over = False

    def feed(self, piece: str) -> str:
        """The text that this piece completes."""
        if self._is_over:
            return ""
        self._rest += piece
        if not self._has_started:
            start = _START.match(self._rest)
            if start is None:
                return ""
            self._has_started = True
            self._rest = self._rest[start.end() :]
        return self._take()

    def _take(self) -> str:
        end = _END.match(self._rest)
        if end is not None:
            whole, self._is_over = end[0][:-1], True
        else:
            cut = _HIGH_SURROGATE.search(self._rest) or _CUT_ESCAPE.search(self._rest)
            stop = len(self._rest) if cut is None else cut.start(cut.lastindex or 0)
            whole, self._rest = self._rest[:stop], self._rest[stop:]
        return _decode(f'"{whole}"') if whole else ""
