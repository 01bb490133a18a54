"""What a request may name where tenants share a provider account: tables by surface, and hostile spellings of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counted import calls_within
from gateway_middleware.core.domain import Surface
from gateway_middleware.core.errors import InvalidRequestError
from gateway_middleware.intake.parsing import parse_fields
from gateway_middleware.intake.resources.media import check_form
from gateway_middleware.intake.resources.tables import TABLES, references_of
from traffic import exchanges

CHAT, RESPONSES, MESSAGES = Surface.CHAT, Surface.RESPONSES, Surface.MESSAGES


def look(surface: Surface, document: Any) -> dict[str, str]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return dict(references_of(surface, parse_fields(body)))


def user(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def items(*parts: Any) -> dict[str, Any]:
    return {"input": list(parts)}


def tool(**members: Any) -> dict[str, Any]:
    return {"tools": [members]}


# Each with the field that the answer names.
REFUSED: list[tuple[Surface, dict[str, Any], str]] = [
    (CHAT, {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, "messages"),
    (CHAT, user({"type": "file", "file": {"file_id": "file-1"}}), "messages"),
    (CHAT, user({"type": "image_url", "image_url": {"url": "file-1"}}), "messages"),
    (CHAT, user({"type": "image_url", "image_url": {"url": "https://a", "file_id": "file-1"}}), "messages"),
    (CHAT, user({"type": "text", "text": "x", "ref": "file-1"}), "messages"),
    (CHAT, user({"type": "of_tomorrow", "text": "x"}), "messages"),
    (CHAT, user({"text": "no type"}), "messages"),
    (CHAT, user(5), "messages"),
    (CHAT, {"audio": {"voice": {"id": "voice_1"}, "format": "wav"}}, "audio"),
    (CHAT, {"data_sources": [{"type": "azure_search", "parameters": {"index_name": "other"}}]}, "data_sources"),
    (
        CHAT,
        {
            "data_sources": [
                {"type": "azure_search", "parameters": {"authentication": {"type": "system_assigned_managed_identity"}}}
            ]
        },
        "data_sources",
    ),
    (
        CHAT,
        {
            "data_sources": [
                {
                    "type": "azure_search",
                    "parameters": {
                        "authentication": {"type": "api_key", "key": "k"},
                        "embedding_dependency": {"type": "deployment_name", "deployment_name": "ada"},
                    },
                }
            ]
        },
        "data_sources",
    ),
    (CHAT, {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}, "tools"),
    (CHAT, {"thread": "thread_1"}, "thread"),
    (CHAT, {"options": {"deep": [{"er": "asst_1"}]}}, "options"),
    (CHAT, {"conversation": "conv_1"}, "conversation"),
    (RESPONSES, {"background": True}, "background"),
    (RESPONSES, {"background_options": {"continuation_id": "bg_1"}}, "background_options"),
    (RESPONSES, {"conversation": "conv_1"}, "conversation"),
    (RESPONSES, {"conversation": {"id": "conv_1"}}, "conversation"),
    (RESPONSES, {"prompt": {"id": "pmpt_1"}}, "prompt"),
    (RESPONSES, {"prompt": ["pmpt_1"]}, "prompt"),
    (RESPONSES, {"container": "cntr_1"}, "container"),
    (RESPONSES, items({"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]}), "input"),
    (RESPONSES, items({"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]}), "input"),
    (RESPONSES, items({"role": "user", "content": [{"type": "input_image", "image_url": "file_1"}]}), "input"),
    (
        RESPONSES,
        items({"type": "function_call_output", "call_id": "c", "output": [{"type": "input_file", "file_id": "f1"}]}),
        "input",
    ),
    (
        RESPONSES,
        items({"type": "computer_call_output", "output": {"type": "computer_screenshot", "file_id": "f1"}}),
        "input",
    ),
    (RESPONSES, items({"type": "of_tomorrow"}), "input"),
    (RESPONSES, items("x"), "input"),
    (RESPONSES, items({"role": "user", "content": "x", "store_ref": "s_1"}), "input"),
    (
        RESPONSES,
        items(
            {
                "type": "additional_tools",
                "role": "developer",
                "tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}],
            }
        ),
        "input",
    ),
    (RESPONSES, tool(type="file_search", vector_store_ids=["vs_1"]), "tools"),
    (RESPONSES, tool(type="code_interpreter", container={"type": "auto", "file_ids": ["f1"]}), "tools"),
    (RESPONSES, tool(type="shell", environment={"type": "container_auto", "file_ids": ["f1"]}), "tools"),
    (
        RESPONSES,
        tool(
            type="shell",
            environment={"type": "container_auto", "skills": [{"type": "skill_reference", "skill_id": "s1"}]},
        ),
        "tools",
    ),
    (RESPONSES, tool(type="image_generation", input_image_mask={"file_id": "f1"}), "tools"),
    (RESPONSES, tool(type="mcp", server_label="l", tunnel_id="t1"), "tools"),
    (RESPONSES, tool(type="namespace", tools=[{"type": "file_search", "vector_store_ids": ["vs_1"]}]), "tools"),
    (RESPONSES, tool(type="of_tomorrow"), "tools"),
    (MESSAGES, user({"type": "document", "source": {"type": "file", "file_id": "file_1"}}), "messages"),
    (MESSAGES, user({"type": "image", "source": {"type": "file", "file_id": "file_1"}}), "messages"),
    (MESSAGES, user({"type": "image", "source": {"type": "url", "url": "file_1"}}), "messages"),
    (MESSAGES, user({"type": "container_upload", "file_id": "file_1"}), "messages"),
    (
        MESSAGES,
        user(
            {
                "type": "tool_result",
                "tool_use_id": "t",
                "content": [{"type": "document", "source": {"type": "file", "file_id": "f1"}}],
            }
        ),
        "messages",
    ),
    (
        MESSAGES,
        user(
            {
                "type": "document",
                "source": {
                    "type": "content",
                    "content": [{"type": "image", "source": {"type": "file", "file_id": "f1"}}],
                },
            }
        ),
        "messages",
    ),
    (
        MESSAGES,
        user(
            {
                "type": "code_execution_tool_result",
                "tool_use_id": "t",
                "content": {
                    "type": "code_execution_result",
                    "content": [{"type": "code_execution_output", "file_id": "f1"}],
                },
            }
        ),
        "messages",
    ),
    (MESSAGES, user({"type": "of_tomorrow"}), "messages"),
    (MESSAGES, {"container": "cntr_1"}, "container"),
    (MESSAGES, {"container": {"id": "cntr_1"}}, "container"),
    (MESSAGES, {"container": {"skills": [{"type": "custom", "skill_id": "skill_1"}]}}, "container"),
    (MESSAGES, {"diagnostics": {"previous_message_id": "msg_1"}}, "diagnostics"),
    (MESSAGES, {"thread": {"type": "continue", "id": "thread_1"}}, "thread"),
    (MESSAGES, {"user_profile_id": "uprof_1"}, "user_profile_id"),
    (MESSAGES, {"fallback_credit_token": "tok_1"}, "fallback_credit_token"),
    (MESSAGES, tool(type="of_tomorrow_20270101", name="x"), "tools"),
    (MESSAGES, tool(type="web_search_20250305", name="web_search", store="s_1"), "tools"),
    (Surface.COUNT_TOKENS, user({"type": "image", "source": {"type": "file", "file_id": "f1"}}), "messages"),
    (Surface.AUDIO_SPEECH, {"voice": {"id": "voice_1"}, "input": "x"}, "voice"),
    (Surface.IMAGES_EDITS, {"images": [{"file_id": "file_1"}]}, "images"),
    (Surface.EMBEDDINGS, {"input": "x", "vector_store": "vs_1"}, "vector_store"),
    (Surface.COMPLETIONS, {"prompt": "x", "prompt_id": "pmpt_1"}, "prompt_id"),
    (Surface.MODERATIONS, {"input": [{"type": "image_url", "image_url": {"url": "file-1"}}]}, "input"),
]

# Named by an identifier whose owner can be known.
REFERENCES: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"previous_response_id": "resp_1"}, {"resp_1": "previous_response_id"}),
    (items({"type": "item_reference", "id": "msg_1"}), {"msg_1": "input"}),
    (items({"id": "msg_1"}), {"msg_1": "input"}),
    (items({"id": "msg_1", "type": None}), {"msg_1": "input"}),
    (items({"type": "message", "role": "assistant", "id": "msg_1", "content": []}), {"msg_1": "input"}),
    (items({"type": "image_generation_call", "id": "ig_1", "status": "completed"}), {"ig_1": "input"}),
    (items({"type": "image_generation_call", "id": "ig_1", "result": None}), {"ig_1": "input"}),
    (items({"type": "reasoning", "id": "rs_1", "summary": []}), {"rs_1": "input"}),
    (items({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": ""}), {"rs_1": "input"}),
    (items({"type": "file_search_call", "id": "fs_1", "queries": ["q"]}), {"fs_1": "input"}),
    (items({"type": "code_interpreter_call", "code": "1", "container_id": "cntr_1"}), {"cntr_1": "input"}),
    (items({"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}), {"mcpr_1": "input"}),
    (tool(type="code_interpreter", container="cntr_1"), {"cntr_1": "tools"}),
    (tool(type="shell", environment={"type": "container_reference", "container_id": "cntr_1"}), {"cntr_1": "tools"}),
    ({"prompt_cache_options": {"comparison_response_id": "resp_1"}}, {"resp_1": "prompt_cache_options"}),
    # What a request brings along answers a question of it, and nothing else.
    (
        {
            "previous_response_id": "resp_1",
            "input": [{"type": "mcp_approval_request", "id": "resp_1", "arguments": "{}", "name": "n"}],
        },
        {"resp_1": "previous_response_id"},
    ),
]

PASSES: list[tuple[Surface, dict[str, Any]]] = [
    (CHAT, {"messages": [{"role": "user", "content": "file_id and vector_store_ids"}], "temperature": 0.5, "n": 1}),
    (
        CHAT,
        {
            "messages": [
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"file_id": "mine"}'}}
                    ],
                }
            ]
        },
    ),
    (
        CHAT,
        user({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, {"type": "text", "text": "x"}),
    ),
    (CHAT, user({"type": "file", "file": {"filename": "a.pdf", "file_data": "data:;base64,AA"}})),
    (CHAT, user({"type": "file", "file": {"file_id": None, "file_data": "AA"}})),
    (
        CHAT,
        {
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "f",
                        "parameters": {"properties": {"file_id": {"type": "string", "const": "file_1"}}},
                    },
                }
            ]
        },
    ),
    (CHAT, {"metadata": {"file_id": "mine"}, "thinking": {"type": "enabled", "budget": 5}, "mode": "fast", "x": None}),
    (CHAT, {"chat_template_kwargs": {"enable_thinking": False}, "top_k": 40, "guided": [1, 2.5e3, True, "a"]}),
    (
        CHAT,
        {
            "data_sources": [
                {
                    "type": "azure_search",
                    "parameters": {"index_name": "mine", "authentication": {"type": "api_key", "key": "k1"}},
                }
            ]
        },
    ),
    (RESPONSES, {"input": 'say "file_id": 5', "previous_response_id": None, "background": False, "store": True}),
    (
        RESPONSES,
        items(
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gA"},
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "content": [
                    {"type": "output_text", "text": "x", "annotations": [{"type": "url_citation", "url": "u_1"}]}
                ],
            },
            {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "file_1"},
        ),
    ),
    (RESPONSES, items({"id": "msg_1", "role": "assistant", "content": "earlier"}, {"role": "user", "content": "x"})),
    (RESPONSES, items({"type": "image_generation_call", "id": "ig_1", "result": "AAAA", "size": "1024x1024"})),
    (
        RESPONSES,
        items(
            {"type": "mcp_approval_request", "id": "mcpr_1", "arguments": "{}", "name": "n", "server_label": "l1"},
            {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
        ),
    ),
    (RESPONSES, tool(type="code_interpreter", container={"type": "auto", "memory_limit": "4g"})),
    (RESPONSES, tool(type="code_interpreter", container={"type": "auto", "file_ids": []})),
    (RESPONSES, tool(type="web_search_preview_2025_03_11", search_context_size="low")),
    (RESPONSES, tool(type="mcp", server_label="l1", server_url="https://a.example/1", headers={"x": "y1"})),
    (RESPONSES, {"prompt": {"variables": {}}, "text": {"format": {"type": "json_schema", "name": "n1"}}}),
    (MESSAGES, {"system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "5m"}}]}),
    (MESSAGES, user({"type": "tool_use", "id": "t", "name": "n", "input": {"file_id": "mine", "container": "x1"}})),
    (
        MESSAGES,
        user({"type": "document", "source": {"type": "base64", "media_type": "a", "data": "AA1"}, "title": "t1"}),
    ),
    (MESSAGES, {"container": {"skills": [{"type": "anthropic", "skill_id": "pptx", "version": "latest"}]}}),
    (MESSAGES, tool(type="bash_20250124", name="bash") | {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
    (MESSAGES, tool(name="f", input_schema={"properties": {"container": {"type": "string"}}, "required": ["file_id"]})),
    (Surface.EMBEDDINGS, {"input": ["x", [1, 2]], "dimensions": 256, "encoding_format": "base64"}),
    (Surface.COMPLETIONS, {"prompt": ["Say", "this"]}),
    (Surface.IMAGES_GENERATIONS, {"prompt": "a file_id", "size": "1024x1024"}),
    (Surface.MODERATIONS, {"input": ["a", "b"], "model": "omni-1"}),
    (Surface.AUDIO_SPEECH, {"voice": "alloy", "input": "x1"}),
]


@pytest.mark.parametrize(("surface", "document", "param"), REFUSED)
def test_what_nobody_can_answer_for_is_refused_by_the_name_of_its_field(
    surface: Surface, document: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        look(surface, document)

    assert caught.value.param == param


@pytest.mark.parametrize(("document", "expected"), REFERENCES)
def test_what_has_an_owner_is_a_reference(document: dict[str, Any], expected: dict[str, str]) -> None:
    assert look(RESPONSES, document) == expected


@pytest.mark.parametrize(("surface", "document"), PASSES)
def test_what_is_complete_in_itself_passes(surface: Surface, document: dict[str, Any]) -> None:
    assert look(surface, document) == {}


def test_every_surface_has_a_table() -> None:
    assert set(TABLES) == set(Surface)


# Hostile spellings: escapes in names and values, blanks, names that stand twice, and depth.


def _escaped(text: str, chosen: list[bool]) -> str:
    return "".join(f"\\u{ord(c):04x}" if e else c for c, e in zip(text, chosen + [False] * len(text), strict=False))


def _spelled(value: Any, draw: Any) -> str:
    """JSON of a value with some characters of its texts escaped, blanks and names that stand twice here and there."""
    if isinstance(value, dict):
        members = []
        for name, inner in value.items():
            spelled = f'"{_escaped(name, draw(st.lists(st.booleans(), max_size=len(name))))}"'
            members.append(f"{spelled}{draw(st.sampled_from(['', ' ', chr(10)]))}:{_spelled(inner, draw)}")
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_spelled(inner, draw) for inner in value) + "]"
    if isinstance(value, str):
        return f'"{_escaped(value, draw(st.lists(st.booleans(), max_size=len(value))))}"'
    return json.dumps(value)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_no_spelling_hides_a_reference(data: st.DataObject) -> None:
    surface, document, _ = data.draw(st.sampled_from(REFUSED))

    with pytest.raises(InvalidRequestError):
        look(surface, _spelled(document, data.draw).encode())


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_no_spelling_hides_what_has_an_owner(data: st.DataObject) -> None:
    document, expected = data.draw(st.sampled_from(REFERENCES))

    assert look(RESPONSES, _spelled(document, data.draw).encode()) == expected


@pytest.mark.parametrize("benign", ["null", '"x"', '[{"type":"text","text":"x"}]'])
@pytest.mark.parametrize("hostile", ['[{"type":"file","file":{"file_id":"file_1"}}]', '[{"type":"of_tomorrow"}]'])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_member_that_stands_twice_hides_nothing(benign: str, hostile: str, is_first: bool) -> None:
    first, second = (hostile, benign) if is_first else (benign, hostile)

    with pytest.raises(InvalidRequestError):
        look(CHAT, f'{{"messages":[{{"role":"user","content":{first},"content":{second}}}]}}'.encode())


@pytest.mark.parametrize(
    "item",
    [
        '{"type":"message","type":"item_reference","id":"msg_1","role":"user","content":"x"}',
        '{"type":"item_reference","type":"message","id":"msg_1","role":"user","content":"x"}',
        '{"type":"message","id":"msg_1","role":"user","content":null,"content":"x"}',
        '{"type":"reasoning","id":"rs_1","encrypted_content":null,"encrypted_content":"x"}',
        '{"type":"reasoning","id":"rs_1","encrypted_content":"x","encrypted_content":null}',
    ],
)
def test_an_item_that_can_be_read_in_two_ways_is_refused(item: str) -> None:
    with pytest.raises(InvalidRequestError):
        look(RESPONSES, f'{{"input":[{item}]}}'.encode())


KNOWN = {name for table in TABLES.values() for name in table}


@settings(deadline=None)
@given(
    surface=st.sampled_from(list(Surface)),
    name=st.from_regex(r"[a-z_]{1,20}", fullmatch=True).filter(lambda n: n not in KNOWN and n != "stream"),
    resource=st.from_regex(r"[a-z]{2,6}[_-][A-Za-z0-9]{1,32}", fullmatch=True),
    path=st.lists(st.one_of(st.none(), st.sampled_from(["a", "id", "value"])), max_size=5),
)
def test_a_field_of_the_future_cannot_name_an_identifier(
    surface: Surface, name: str, resource: str, path: list[str | None]
) -> None:
    value: Any = resource
    for step in path:
        value = [value] if step is None else {step: value}

    with pytest.raises(InvalidRequestError) as caught:
        look(surface, {name: value})
    assert caught.value.param == name


@settings(deadline=None)
@given(
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(allow_nan=False, allow_infinity=False),
            st.sampled_from(["", "auto"]),
        ),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b_c"]), inner)),
        max_leaves=10,
    )
)
def test_a_field_of_the_future_with_numbers_and_words_passes(value: Any) -> None:
    assert look(CHAT, {"of_tomorrow": value}) == {}


def test_so_many_references_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="more than 1000"):
        look(RESPONSES, items(*[{"id": f"msg_{n}"} for n in range(1001)]))


@pytest.mark.parametrize(
    ("surface", "body"),
    [
        (RESPONSES, b'{"input":[{"file_id":0},' + b"1," * 3_000_000 + b"1]}"),
        (RESPONSES, b'{"input":["file_id\\u005f",' + b'"a",' * 2_000_000 + b'"a"]}'),
        (RESPONSES, b'{"tools":[{"file_id":0},' + b"1," * 3_000_000 + b"1]}"),
        (RESPONSES, b'{"input":[{"file_id":0},' + b'{"a":1},' * 99_000 + b"{}]}"),
        (RESPONSES, b'{"input":[' + b'{"id":"a","content":1},' * 99_000 + b'{"id":"a","content":1}]}'),
        (CHAT, b'{"x":[' + b"1," * 3_000_000 + b"1]}"),
        (CHAT, b'{"x":"' + b"a" * 8_000_000 + b'"}'),
    ],
)
def test_what_is_costly_is_refused_early(surface: Surface, body: bytes) -> None:
    fields = parse_fields(body)

    def look() -> None:
        with pytest.raises(InvalidRequestError):
            references_of(surface, fields)

    assert calls_within(look) < 8 * 100_000  # so many items may be looked at


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"9" * 5000])
@pytest.mark.parametrize(
    "layout", [b'{"conversation":%b}', b'{"previous_response_id":%b}', b'{"tools":[{"id":%b},%b]}']
)
def test_a_number_that_cannot_be_read_is_a_client_error(layout: bytes, number: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        look(RESPONSES, layout.replace(b"%b", number))


def test_a_form_names_nothing_either() -> None:
    check_form({b"model": b"whisper-1", b"prompt": b"file_1", b"temperature": b"0.5", b"mode": b"auto"})

    with pytest.raises(InvalidRequestError) as caught:
        check_form({b"file_id": b"file_1"})
    assert caught.value.param == "file_id"


SURFACES = {
    "chat": CHAT,
    "responses": RESPONSES,
    "messages": MESSAGES,
    "count_tokens": Surface.COUNT_TOKENS,
    "embeddings": Surface.EMBEDDINGS,
}
STORED = ("file_id", "container", "vector_store_ids", '"prompt": {', '"background": true')


def test_recorded_requests_pass_unless_they_name_what_is_stored() -> None:
    recorded = [e for e in exchanges() if e.surface in SURFACES and isinstance(e.request_body, dict)]
    passed = 0
    for exchange in recorded:
        try:
            look(SURFACES[exchange.surface], exchange.request_body)
        except InvalidRequestError:
            assert any(name in json.dumps(exchange.request_body) for name in STORED), exchange.id
        else:
            passed += 1
    assert passed > len(recorded) * 0.9
