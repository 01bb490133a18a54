"""The items of a Responses request, read as turns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import json

from gateway_middleware.translation.responses.client_tools import SEARCH, qualified
from gateway_middleware.translation.responses.proofs import read_proof
from gateway_middleware.translation.responses.tools_decoder import read_tools
from gateway_middleware.translation.sources import file_of, image_at
from gateway_middleware.translation.vocabulary import (
    Document,
    Image,
    Message,
    Part,
    Refusal,
    Role,
    Text,
    ToolCall,
    ToolResult,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.translation.fields import Fields
    from gateway_middleware.translation.vocabulary import Tool

_STORED = "names what only its provider has stored; send its content"
_ROLES = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM, "developer": Role.SYSTEM}
_SEARCHING = frozenset({"tool_search_call", "tool_search_output"})
_REFUSED = {"item_reference": _STORED, "compaction": "holds a conversation that only its provider can read"}


def read_input(fields: Fields) -> tuple[tuple[Message, ...], list[Tool]]:
    """All turns, neighbours of one role in one, and the tools that they offer. Raises `InvalidRequestError`."""
    value = fields.any("input")
    if isinstance(value, str):
        return (Message(role=Role.USER, parts=(Text(text=value),)),), []
    fields.put_back("input", value)
    if not fields.list_is_given("input"):
        fields.refuse("input", "must be a string, or an array that is not empty")
    turns: list[Message] = []
    tools: list[Tool] = []
    for item in fields.children("input"):
        turn = _read_item(item, tools)
        if turn is None:
            continue
        if turns and turns[-1].role is turn.role:
            turns[-1] = Message(role=turn.role, parts=turns[-1].parts + turn.parts)
        else:
            turns.append(turn)
    return tuple(turns), tools


def _read_item(item: Fields, tools: list[Tool]) -> Message | None:
    """The turn that an item is; what tools it offers are added to those."""
    kind = item.text("type") or "message"
    item.ignore("status", "phase")
    item.ignore_direct_caller()
    reader = _READERS.get(kind)
    if reader is not None:
        return reader(item)
    if kind == "additional_tools":
        item.ignore("id", "role")
        tools += read_tools(item)
        return None
    if kind in _SEARCHING and item.text("execution") == "client":
        item.ignore("id")
        return _search_call(item) if kind == "tool_search_call" else _search_result(item, tools)
    if kind in _REFUSED:
        item.refuse("type", f"is `{kind}`, which {_REFUSED[kind]}")
    item.drop_whole(kind)
    return None


def _message(item: Fields) -> Message:
    role = item.needed_text("role")
    if role not in _ROLES:
        item.refuse("role", f"is `{role[:32]}`, which is none of this dialect")
    item.ignore("id")
    parts = _content(item, "content")
    if _ROLES[role] is Role.SYSTEM and not all(isinstance(part, Text) for part in parts):
        item.refuse("content", "of a system message must be text")
    return Message(role=_ROLES[role], parts=parts)


def _content(item: Fields, name: str) -> tuple[Part, ...]:
    value = item.any(name)
    if value is None:
        return ()
    if isinstance(value, str):
        return (Text(text=value),)
    item.put_back(name, value)
    return tuple(_part(part) for part in item.children(name))


def _part(part: Fields) -> Part:
    kind = part.needed_text("type")
    cache = part.object("cache_control")
    part.ignore("logprobs")
    if kind in {"input_text", "output_text", "text"}:
        part.drop("annotations")
        return Text(text=part.text("text") or "", cache=cache)
    if kind == "refusal":
        return Refusal(text=part.text("refusal") or "")
    if kind == "input_image":
        return _image(part, cache)
    if kind == "input_file":
        return _file(part, cache)
    return part.refuse("type", f"is `{kind[:32]}`, which is not supported here")


def _image(part: Fields, cache: dict[str, Any] | None) -> Image:
    address, detail = part.text("image_url"), part.text("detail")
    if address is None:
        part.refuse("file_id", _STORED)
    return image_at(address, None if detail == "auto" else detail, cache)


def _file(part: Fields, cache: dict[str, Any] | None) -> Document:
    data, url, name = part.text("file_data"), part.text("file_url"), part.text("filename")
    part.ignore("detail")
    if data is not None:
        if url is not None:
            part.lose("file_url")
        return file_of(data, name, cache)
    if url is None:
        part.refuse("file_id", _STORED)
    return Document(url=url, name=name, cache=cache)


def _call(item: Fields) -> Message:
    return _called(item, "arguments", is_free_form=False)


def _custom_call(item: Fields) -> Message:
    return _called(item, "input", is_free_form=True)


def _called(item: Fields, member: str, *, is_free_form: bool) -> Message:
    item.ignore("id")
    call = ToolCall(
        id=item.needed_text("call_id"),
        name=qualified(item.text("namespace"), item.needed_text("name")),
        arguments=item.text(member) or "",
        is_free_form=is_free_form,
    )
    return Message(role=Role.ASSISTANT, parts=(call,))


def _result(item: Fields) -> Message:
    return _output(item, is_free_form=False)


def _custom_result(item: Fields) -> Message:
    return _output(item, is_free_form=True)


def _output(item: Fields, *, is_free_form: bool) -> Message:
    item.ignore("id", "name")
    parts = tuple(part for part in _content(item, "output") if isinstance(part, (Text, Image, Document)))
    result = ToolResult(call_id=item.needed_text("call_id"), parts=parts, is_free_form=is_free_form)
    return Message(role=Role.USER, parts=(result,))


def _search_call(item: Fields) -> Message:
    arguments = json.encode(item.any("arguments") or {}).decode()
    return Message(
        role=Role.ASSISTANT, parts=(ToolCall(id=item.needed_text("call_id"), name=SEARCH, arguments=arguments),)
    )


def _search_result(item: Fields, tools: list[Tool]) -> Message:
    """A search is answered with the names of what it has loaded: the tools stand with all others."""
    loaded = read_tools(item, are_loaded=True)
    tools += loaded
    text = Text(text="\n".join(tool.name for tool in loaded) or "Nothing was found.")
    return Message(role=Role.USER, parts=(ToolResult(call_id=item.needed_text("call_id"), parts=(text,)),))


def _reasoning(item: Fields) -> Message:
    shown = [part.text("text") or "" for part in item.children("summary") if _has_type(part)]
    shown += [part.text("text") or "" for part in item.children("content") if _has_type(part)]
    part = read_proof("\n\n".join(shown), item.text("encrypted_content"), item.text("id"))
    return Message(role=Role.ASSISTANT, parts=(part,))


def _has_type(part: Fields) -> bool:
    return part.text("type") is not None


_READERS: dict[str, Callable[[Fields], Message]] = {
    "message": _message,
    "function_call": _call,
    "function_call_output": _result,
    "custom_tool_call": _custom_call,
    "custom_tool_call_output": _custom_result,
    "reasoning": _reasoning,
}
