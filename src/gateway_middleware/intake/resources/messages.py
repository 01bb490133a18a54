"""Anthropic's Messages API, and its counting of tokens."""

from __future__ import annotations

from typing import Literal

import msgspec

from gateway_middleware.intake.resources.rules import (
    NULL,
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
    text_of,
)


def _blocks(raw: msgspec.Raw, scan: Scan) -> None:
    _BLOCKS(raw, scan)


_NESTED = Shaped(text=anything, items=Each(_blocks), members=_blocks)
_CITED = Members(all_of("cited_text document_title title url source encrypted_index"))
_CITATIONS = Shaped(items=Each(_CITED))
_SOURCE = Kinds(
    {
        **all_of("base64 text", Members(all_of("data media_type"))),
        "url": Members({"url": address}),
        "content": Members({"content": _NESTED}),
        "file": Members({"file_id": nothing}),
    }
)
_EXECUTED = Kinds(
    {
        **all_of(
            "code_execution_result encrypted_code_execution_result bash_code_execution_result",
            Members(
                {
                    "content": Each(
                        Kinds(all_of("code_execution_output bash_code_execution_output", Members({"file_id": nothing})))
                    ),
                    **all_of("stdout stderr encrypted_stdout"),
                }
            ),
        ),
        **all_of(
            "code_execution_tool_result_error bash_code_execution_tool_result_error", Members(all_of("error_code"))
        ),
    }
)
_FETCHED = Kinds(
    {
        "web_fetch_result": Members({"content": _NESTED, **all_of("url retrieved_at")}),
        "web_fetch_tool_result_error": Members(all_of("error_code")),
    }
)
_RESULT = "tool_use_id is_error cache_control caller"
_DEFINITION = Members(
    all_of(
        "name description input_schema cache_control input_examples allowed_callers defer_loading strict "
        "allowed_domains blocked_domains user_location citations eager_input_streaming mcp_server_name default_config "
        "configs"
    )
)
_TOOL = Kinds(
    {
        **all_of(
            "custom bash text_editor computer computer_toolset browser_toolset memory web_search web_fetch "
            "code_execution tool_search_tool_bm25 tool_search_tool_regex mcp_toolset",
            _DEFINITION,
        ),
        "advisor": Members(all_of("name model allowed_callers cache_control caching defer_loading strict")),
    },
    untyped=_DEFINITION,
)
_NAMED_TOOL = Kinds(
    {
        **all_of(
            "tool_reference mcp_tool_reference mcp_toolset_reference mcp_toolset",
            Members(all_of("name tool_name server_name mcp_server_name")),
        ),
        "tool_definition": Members({"definition": _TOOL}),
    }
)
_BLOCKS: Kinds = Kinds(
    {
        "text": Members({"citations": _CITATIONS, **all_of("text cache_control")}),
        "image": Members({"source": _SOURCE, "cache_control": anything}),
        "document": Members({"source": _SOURCE, **all_of("title context citations cache_control")}),
        "search_result": Members({"content": _NESTED, **all_of("source title citations cache_control")}),
        **all_of("thinking redacted_thinking", Members(all_of("thinking signature data"))),
        **all_of(
            "tool_use server_tool_use mcp_tool_use", Members(all_of("id name input server_name cache_control caller"))
        ),
        **all_of("tool_result mcp_tool_result", Members({"content": _NESTED, **all_of(_RESULT)})),
        "web_search_tool_result": Members(all_of(f"content {_RESULT}")),
        "web_fetch_tool_result": Members({"content": _FETCHED, **all_of(_RESULT)}),
        **all_of(
            "code_execution_tool_result bash_code_execution_tool_result",
            Members({"content": _EXECUTED, **all_of(_RESULT)}),
        ),
        **all_of(
            "text_editor_code_execution_tool_result tool_search_tool_result", Members(all_of(f"content {_RESULT}"))
        ),
        "tool_reference": Members(all_of("tool_name cache_control")),
        "container_upload": Members({"file_id": nothing, "cache_control": anything}),
        "compaction": Members(
            {"tool_changes": Each(_blocks), **all_of("content encrypted_content signature cache_control")}
        ),
        **all_of("tool_addition tool_removal", Members({"tool": _NAMED_TOOL, "cache_control": anything})),
        "mcp_tool_listing": Members(all_of("mcp_server_name tools")),
        "advisor_tool_result": Members(all_of(f"content {_RESULT}")),
        "fallback": Members(all_of("to trigger")),
    }
)
_CONTENT = Shaped(text=anything, items=Each(_BLOCKS))


def _skill(raw: msgspec.Raw, scan: Scan) -> None:
    """Skills of the vendor are for everybody, custom ones belong to the account."""
    scan.member = "skills"
    if text_of(members(raw, scan).get("type", msgspec.Raw(b'""')), scan) != "anthropic":
        scan.refuse_member()


class _Text(msgspec.Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    text: str
    cache_control: msgspec.Raw = NULL


class _ToolUse(msgspec.Struct, tag_field="type", tag="tool_use", forbid_unknown_fields=True):
    id: str
    name: str
    input: msgspec.Raw
    cache_control: msgspec.Raw = NULL


class _ToolResult(msgspec.Struct, tag_field="type", tag="tool_result", forbid_unknown_fields=True):
    tool_use_id: str
    content: str | list[_Text] = ""
    is_error: bool = False
    cache_control: msgspec.Raw = NULL


class _Thinking(msgspec.Struct, tag_field="type", tag="thinking", forbid_unknown_fields=True):
    thinking: str
    signature: str = ""


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    role: str
    content: str | list[_Text | _ToolUse | _ToolResult | _Thinking]


class _Tool(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    input_schema: msgspec.Raw
    description: str = ""
    type: Literal["custom"] = "custom"
    cache_control: msgspec.Raw = NULL


MESSAGES: dict[str, Rule] = {
    "messages": Quick(list[_Message], rule=Each(Members({"role": anything, "content": _CONTENT}))),
    "system": Shaped(text=anything, items=Quick(list[_Text], rule=Each(_BLOCKS))),
    "tools": Quick(list[_Tool], rule=Each(_TOOL)),
    "container": Shaped(text=nothing, members=Members({"id": nothing, "skills": Each(_skill)})),
    "mcp_servers": Each(Members(all_of("name url authorization_token tool_configuration"))),
    **all_of(
        "model metadata stop_sequences thinking tool_choice output_config output_format service_tier "
        "context_management cache_control inference_geo speed"
    ),
}
