"""Chat completions, in OpenAI's and Azure's dialect, and text completions."""

from __future__ import annotations

from typing import Literal

import msgspec

from gateway_middleware.intake.resources.rules import (
    Address,
    Each,
    Kinds,
    Members,
    Quick,
    Rule,
    Scan,
    Shaped,
    address,
    all_of,
    anything,
    members,
    nothing,
    plain,
    text_of,
)

VOICE = Shaped(text=anything, members=Members({"id": nothing}))
"""A name that the vendor made is for everybody, an identifier is a voice of the account."""
IMAGE_URL = Shaped(text=address, members=Members({"url": address, "detail": anything}))
_TEXT = Members(all_of("text refusal thinking signature cache_control prompt_cache_breakpoint"))
PARTS = Kinds(
    {
        **all_of("text refusal thinking", _TEXT),
        "image_url": Members({"image_url": IMAGE_URL, **all_of("cache_control prompt_cache_breakpoint")}),
        "video_url": Members({"video_url": IMAGE_URL, **all_of("cache_control")}),
        "input_audio": Members(
            {"input_audio": Members(all_of("data format")), **all_of("cache_control prompt_cache_breakpoint")}
        ),
        "file": Members(
            {
                "file": Members({**all_of("file_data filename"), "file_id": nothing}),
                **all_of("cache_control prompt_cache_breakpoint"),
            }
        ),
    }
)
_MESSAGE = Members(
    {
        "content": Shaped(text=anything, items=Each(PARTS)),
        "audio": Members({"id": nothing, **all_of("data transcript")}),
        "annotations": Each(Kinds({"url_citation": anything})),
        **all_of(
            "role name tool_calls tool_call_id function_call refusal reasoning_content reasoning reasoning_details"
        ),
    }
)


class _Text(msgspec.Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    text: str


class _Url(msgspec.Struct, forbid_unknown_fields=True):
    url: Address
    detail: str = ""


class _Image(msgspec.Struct, tag_field="type", tag="image_url", forbid_unknown_fields=True):
    image_url: _Url


class _Call(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    function: msgspec.Raw
    id: str = ""


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    role: str
    content: str | list[_Text | _Image] | None = None
    name: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None


class _Function(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    function: msgspec.Raw


_OWN_CREDENTIALS = frozenset(
    ["api_key", "access_token", "connection_string", "encoded_api_key", "key_and_key_id", "username_and_password"]
)


def _own_credential(raw: msgspec.Raw, scan: Scan) -> None:
    """What the client itself may read with a credential of its own, not by the identity of the shared account."""
    if text_of(members(raw, scan).get("type", msgspec.Raw(b'""')), scan) not in _OWN_CREDENTIALS:
        scan.refuse_member()


def _data_source(raw: msgspec.Raw, scan: Scan) -> None:
    """Without a credential, or with a managed identity, it is read as the shared account."""
    parameters = members(members(raw, scan).get("parameters", msgspec.Raw(b"{}")), scan)
    scan.member = "authentication"
    if "authentication" not in parameters:
        scan.refuse("holds a data source without `authentication`: it would be read as the shared provider account")
    _own_credential(parameters["authentication"], scan)
    scan.member = "embedding_dependency"
    _EMBEDDING(parameters.get("embedding_dependency", msgspec.Raw(b'{"type":"integrated"}')), scan)


_EMBEDDING = Kinds(
    {"integrated": plain, "endpoint": Members({"authentication": _own_credential, **all_of("endpoint dimensions")})}
)

CHAT: dict[str, Rule] = {
    "messages": Quick(list[_Message], rule=Each(_MESSAGE)),
    "tools": Quick(list[_Function], rule=Each(Kinds({"function": anything, "custom": anything}))),
    "audio": Members({"voice": VOICE, "format": anything}),
    "prediction": Members({"content": Shaped(text=anything, items=Each(PARTS))}),
    "data_sources": Each(_data_source),
    "prompt_cache_options": Members(all_of("mode ttl")),
    **all_of(
        "model functions function_call tool_choice response_format metadata user safety_identifier prompt_cache_key "
        "prompt_cache_retention reasoning_effort service_tier verbosity modalities logit_bias stop stream_options "
        "web_search_options moderation"
    ),
}
COMPLETIONS: dict[str, Rule] = all_of(
    "model prompt suffix stop logit_bias user stream_options metadata safety_identifier"
)
