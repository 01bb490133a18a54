"""A whole response, read into the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.core.errors import UpstreamProtocolError
from gateway_middleware.translation.responses.proofs import read_proof
from gateway_middleware.translation.vocabulary import Answer, Citation, Reasoning, Refusal, Stop, Text, ToolCall

if TYPE_CHECKING:
    from gateway_middleware.translation.context import Context


class _Content(msgspec.Struct):
    type: str = ""
    text: str | None = None
    refusal: str | None = None
    annotations: list[dict[str, Any]] | None = None


class Item(msgspec.Struct):
    """One item of an output, whichever."""

    type: str
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: Any = None
    input: Any = None
    content: list[_Content] | None = None
    summary: list[_Content] | None = None
    encrypted_content: str | None = None


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class Envelope(msgspec.Struct):
    """What of a response is read."""

    id: str | None = None
    model: str | None = None
    created_at: float | None = None
    status: str | None = None
    incomplete_details: _Incomplete | None = None
    output: list[Item] = msgspec.field(default_factory=list)


_decode = msgspec.json.Decoder(Envelope).decode


def read_answer(body: bytes, _context: Context) -> Answer:
    """Raises `UpstreamProtocolError` for what is no response."""
    try:
        response = _decode(body)
    except (ValueError, RecursionError):
        raise UpstreamProtocolError("The provider's answer is no response.") from None
    parts = tuple(part for item in response.output for part in _parts(item))
    return Answer(
        id=response.id or "",
        model=response.model or "",
        parts=parts,
        stop=stop_of(response, {type(part) for part in parts}),
        created=None if response.created_at is None else int(response.created_at),
    )


def stop_of(response: Envelope, kinds: set[type[Any]]) -> Stop:
    """Why it stopped: that it is incomplete comes before the kinds of parts in it."""
    if response.status == "incomplete":
        reason = response.incomplete_details.reason if response.incomplete_details is not None else None
        return Stop.CONTENT_FILTER if reason == "content_filter" else Stop.LENGTH
    return Stop.TOOL_CALLS if ToolCall in kinds else Stop.REFUSAL if Refusal in kinds else Stop.END


def citation_of(annotation: dict[str, Any]) -> Citation:
    return Citation(raw=annotation, url=annotation.get("url"), title=annotation.get("title"))


def reasoning_of(item: Item) -> Reasoning | None:
    """None for an item that neither shows nor proves anything."""
    shown = "\n\n".join(part.text or "" for part in (*(item.summary or ()), *(item.content or ())))
    reasoning = read_proof(shown, item.encrypted_content, item.id)
    return reasoning if shown or reasoning.proof is not None else None


def _parts(item: Item) -> list[Text | ToolCall | Reasoning | Refusal]:
    if item.type == "message":
        return [_said(content) for content in item.content or ()]
    if item.type == "function_call":
        return [ToolCall(id=item.call_id or "", name=item.name or "", arguments=str(item.arguments or ""))]
    if item.type == "custom_tool_call":
        text = str(item.input or "")
        return [ToolCall(id=item.call_id or "", name=item.name or "", arguments=text, is_free_form=True)]
    reasoning = reasoning_of(item) if item.type == "reasoning" else None
    return [] if reasoning is None else [reasoning]


def _said(content: _Content) -> Text | Refusal:
    if content.type == "refusal":
        return Refusal(text=content.refusal or "")
    return Text(text=content.text or "", citations=tuple(citation_of(found) for found in content.annotations or ()))
