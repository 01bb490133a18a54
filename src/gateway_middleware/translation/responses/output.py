"""The items of an output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import json

from gateway_middleware.translation.responses.proofs import encrypted_content
from gateway_middleware.translation.vocabulary import Citation, Reasoning, ToolCall

if TYPE_CHECKING:
    from gateway_middleware.translation.responses.client_tools import ClientTools


def message_item(item_id: str, content: list[dict[str, Any]], status: str = "completed") -> dict[str, Any]:
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content}


def text_content(text: str, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": []}


def refusal_content(text: str) -> dict[str, Any]:
    return {"type": "refusal", "refusal": text}


def annotation_of(citation: Citation, start: int, end: int) -> dict[str, Any] | None:
    """The citation of a page in the web; others have no word here."""
    if citation.url is None:
        return None
    place = {"start_index": start, "end_index": end}
    return {"type": "url_citation", "url": citation.url, "title": citation.title or "", **place}


def call_item(item_id: str, call: ToolCall, tools: ClientTools, status: str = "completed") -> dict[str, Any]:
    """With the arguments as they are: none at all are an empty object once the call is whole."""
    if tools.is_search(call.name):
        return search_item(item_id, call, status)
    named = {"id": item_id, "status": status, "call_id": call.id, "name": call.name}
    if call.name in tools.namespaces:
        named["namespace"], named["name"] = tools.namespaces[call.name]
    if call.is_free_form:
        return {"type": "custom_tool_call", **named, "input": call.arguments}
    whole = call.arguments or ("{}" if status == "completed" else "")
    return {"type": "function_call", **named, "arguments": whole}


def search_item(item_id: str, call: ToolCall, status: str = "completed") -> dict[str, Any]:
    """The call of the client's search for tools. Arguments that cannot be read are given as their text."""
    try:
        arguments = json.decode(call.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = call.arguments
    named = {"id": item_id, "status": status, "call_id": call.id, "execution": "client"}
    return {"type": "tool_search_call", **named, "arguments": arguments}


def reasoning_item(item_id: str, reasoning: Reasoning) -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": reasoning.text}] if reasoning.text else []
    item: dict[str, Any] = {"id": item_id, "type": "reasoning", "summary": summary}
    proof = encrypted_content(reasoning)
    return item if proof is None else {**item, "encrypted_content": proof}
