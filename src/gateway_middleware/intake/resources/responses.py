"""The Responses API: what its input items and tools may name."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

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
    approval,
    members,
    nothing,
    reference,
)

_CITATION = Kinds(
    {
        "url_citation": anything,
        "container_file_citation": Members({"container_id": reference, **all_of("file_id filename")}),
        **all_of("file_citation file_path", Members({"file_id": nothing, "filename": anything})),
    }
)
_FILE = Members(
    {"file_url": address, "file_id": nothing, **all_of("file_data filename detail prompt_cache_breakpoint")}
)
_IMAGE = Members({"image_url": address, "file_id": nothing, **all_of("detail prompt_cache_breakpoint")})
_PARTS = Kinds(
    {
        **all_of("input_text text refusal summary_text reasoning_text encrypted_content input_audio"),
        "output_text": Members({"annotations": Each(_CITATION), **all_of("text logprobs")}),
        **all_of("input_image computer_screenshot", _IMAGE),
        "input_file": _FILE,
    }
)
_CONTENT = Shaped(text=anything, items=Each(_PARTS))
_COMMON = "id call_id status caller name namespace role phase"


def _item(content: str, also: str = "", rules: dict[str, Rule] | None = None, *, asks: bool = False) -> Members:
    """An item. `content` names what it is about: without any of it, its identifier stands for a stored item."""
    names = content.split()
    return Members(
        {**all_of(_COMMON), **all_of(content), **all_of(also), **(rules or {})}, content=tuple(names), asks=asks
    )


_NETWORK = Members(all_of("allowed_domains domain_secrets"))
_CONTAINER = Shaped(
    text=reference,
    members=Members({"file_ids": nothing, "memory_limit": anything, "network_policy": _NETWORK}),
)
_SKILLS = Each(Kinds({"inline": anything, "skill_reference": Members({"skill_id": nothing, "version": anything})}))
_ENVIRONMENT = Kinds(
    {
        "container_auto": Members(
            {"file_ids": nothing, "memory_limit": anything, "network_policy": _NETWORK, "skills": _SKILLS}
        ),
        "local": anything,
        "container_reference": Members({"container_id": reference}),
    }
)


def _nested_tools(raw: msgspec.Raw, scan: Scan) -> None:
    TOOLS(raw, scan)


_FUNCTION = Members(
    all_of("name description parameters strict format output_schema allowed_callers defer_loading function")
)
TOOLS = Each(
    Kinds(
        {
            **all_of("function custom", _FUNCTION),
            **all_of(
                "web_search web_search_preview",
                Members(all_of("filters user_location search_context_size search_content_types allowed_callers")),
            ),
            **all_of("computer computer_use_preview local_shell apply_patch", Members(all_of("allowed_callers"))),
            "mcp": Members(
                {
                    "tunnel_id": nothing,
                    **all_of(
                        "server_label server_url server_description authorization headers allowed_tools "
                        "require_approval connector_id allowed_callers defer_loading"
                    ),
                }
            ),
            "file_search": Members({"vector_store_ids": nothing, **all_of("filters ranking_options max_num_results")}),
            "code_interpreter": Members({"container": _CONTAINER, "allowed_callers": anything}),
            "image_generation": Members(
                {
                    "input_image_mask": Members({"image_url": address, "file_id": nothing}),
                    **all_of("model size quality output_format background input_fidelity moderation action svg"),
                }
            ),
            "shell": Members({"environment": _ENVIRONMENT, "allowed_callers": anything}),
            "tool_search": Members(all_of("execution description parameters")),
            "namespace": Members({"tools": _nested_tools, **all_of("name description")}),
            "programmatic_tool_calling": Members({}),
        }
    )
)
_MESSAGE = _item("content", rules={"content": _CONTENT})
_OUTPUT = _item(
    "output",
    rules={"output": Shaped(text=anything, items=Each(_PARTS), members=_PARTS)},
    also="acknowledged_safety_checks max_output_length",
)
_KNOWN: dict[str, Rule] = {
    "message": _MESSAGE,
    "item_reference": Members({"id": reference}),
    "function_call": _item("arguments"),
    "custom_tool_call": _item("input"),
    **all_of("function_call_output custom_tool_call_output computer_call_output", _OUTPUT),
    "computer_call": _item("action actions", "pending_safety_checks"),
    "web_search_call": _item("action"),
    "file_search_call": _item(
        "results",
        "queries",
        {
            "results": Each(
                Members({"file_id": nothing, "vector_store_id": nothing, **all_of("text filename attributes score")})
            )
        },
    ),
    "code_interpreter_call": _item("code", "outputs", {"container_id": reference}),
    "image_generation_call": _item(
        "result", "revised_prompt action background output_format quality size model moderation error svg usage"
    ),
    "local_shell_call": _item("action"),
    "local_shell_call_output": _item("output"),
    "shell_call": _item("action", rules={"environment": _ENVIRONMENT}),
    "shell_call_output": _item("output", "max_output_length"),
    "apply_patch_call": _item("operation"),
    "apply_patch_call_output": _item("status output"),
    "mcp_list_tools": _item("tools", "server_label error"),
    "mcp_approval_request": _item("arguments", "server_label", asks=True),
    "mcp_approval_response": Members({"approval_request_id": approval, **all_of("id approve reason")}),
    "mcp_call": _item("arguments", "server_label output error", {"approval_request_id": approval}),
    "reasoning": _item("encrypted_content", "summary content"),
    "compaction": _item("encrypted_content"),
    "compaction_trigger": Members(all_of("id")),
    "configuration_update": Members(all_of("id reasoning text")),
    "tool_search_call": _item("arguments", "execution"),
    "tool_search_output": _item("tools", "execution", {"tools": TOOLS}),
    "additional_tools": _item("tools", rules={"tools": TOOLS}),
    "program": _item("code", "fingerprint"),
    "program_output": _item("result"),
}


def _untyped(raw: msgspec.Raw, scan: Scan) -> None:
    """A message needs no type; an identifier alone is a reference."""
    fields = members(raw, scan)
    rule = _MESSAGE if fields.get("role", NULL) != NULL or "content" in fields else Members({"id": reference})
    rule.check(fields, scan)


def _background(raw: msgspec.Raw, scan: Scan) -> None:
    if raw == msgspec.Raw(b"true"):
        scan.refuse("makes a response after its answer, where nobody counts what it uses")


_Filled: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]


class _Text(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["input_text", "output_text"]
    text: str
    annotations: Annotated[list[str], msgspec.Meta(max_length=0)] = []
    logprobs: msgspec.Raw = NULL


class _Plain(msgspec.Struct, forbid_unknown_fields=True):
    """A message without type and identifier."""

    role: str
    content: str | list[_Text]


class _Item(msgspec.Struct, tag_field="type", forbid_unknown_fields=True):
    """A common item. Whatever identifier it has, it brings along what it is about."""

    id: str | None = None
    status: str | None = None


class _Message(_Item, tag="message", kw_only=True):
    role: str
    content: _Filled | Annotated[list[_Text], msgspec.Meta(min_length=1)]
    phase: str | None = None


class _FunctionCall(_Item, tag="function_call", kw_only=True):
    call_id: str
    name: str
    arguments: _Filled


class _FunctionOutput(_Item, tag="function_call_output", kw_only=True):
    call_id: str
    output: _Filled


class _Reasoning(_Item, tag="reasoning", kw_only=True):
    encrypted_content: _Filled
    summary: msgspec.Raw = NULL
    content: msgspec.Raw = NULL


class _Function(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    name: str = ""
    description: str | None = None
    parameters: msgspec.Raw = NULL
    strict: bool | None = None


_ITEMS = Each(Kinds(_KNOWN, untyped=_untyped))
_QUICK_ITEMS = Quick(list[_Plain], list[_Message | _FunctionCall | _FunctionOutput | _Reasoning], rule=_ITEMS)
RESPONSES: dict[str, Rule] = {
    "input": Shaped(text=anything, items=_QUICK_ITEMS),
    "instructions": Shaped(text=anything, items=_ITEMS),
    "tools": Quick(list[_Function], rule=TOOLS),
    "previous_response_id": reference,
    "conversation": nothing,
    "prompt": Members({"id": nothing, **all_of("version variables")}),
    "background": _background,
    "prompt_cache_options": Members({"comparison_response_id": reference, **all_of("mode ttl")}),
    **all_of(
        "model metadata user safety_identifier prompt_cache_key prompt_cache_retention include reasoning text "
        "tool_choice service_tier truncation stream_options moderation access_programs"
    ),
}
