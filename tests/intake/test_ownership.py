"""Stored provider resources belong to the tenant that made them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clock import Clock
from gateway_middleware.core.domain import Tenant
from gateway_middleware.core.errors import InvalidRequestError
from gateway_middleware.intake.ownership import ResponseOwners
from gateway_middleware.intake.parsing import parse_fields

ACME, OTHER = Tenant(name="acme"), Tenant(name="other")


def check(owners: ResponseOwners, document: Any, tenant: Tenant = ACME, *, body: bytes | None = None) -> str | None:
    body = json.dumps(document).encode() if body is None else body
    return owners.check(parse_fields(body), body, tenant)


def test_a_response_goes_back_to_its_deployment_for_its_tenant_only() -> None:
    owners = ResponseOwners(is_shared=True)
    owners.remember("resp_1", ACME, "openai/gpt-5")

    assert check(owners, {"previous_response_id": "resp_1"}) == "openai/gpt-5"
    with pytest.raises(InvalidRequestError) as caught:
        check(owners, {"previous_response_id": "resp_1"}, OTHER)
    assert caught.value.param == "previous_response_id"


def test_an_unknown_response_is_refused_only_where_tenants_share() -> None:
    with pytest.raises(InvalidRequestError):
        check(ResponseOwners(is_shared=True), {"previous_response_id": "resp_x"})
    assert check(ResponseOwners(is_shared=False), {"previous_response_id": "resp_x"}) is None
    assert check(ResponseOwners(is_shared=True), {"previous_response_id": None}) is None


def test_ownership_ends() -> None:
    clock = Clock()
    owners = ResponseOwners(is_shared=True, seconds=10, clock=clock)
    owners.remember("resp_1", ACME, "openai/gpt-5")
    clock.advance(11)

    with pytest.raises(InvalidRequestError):
        check(owners, {"previous_response_id": "resp_1"})


SHARED: list[tuple[Any, str]] = [
    ({"background": True}, "background"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"conversation": {"id": "conv_1"}}, "conversation"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"container": "cntr_1"}, "container"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input"),
    ({"input": [{"content": [{"type": "input_file", "file_id": "file_1"}]}]}, "input"),
    ({"messages": [{"content": [{"type": "document", "source": {"type": "file", "file_id": "f"}}]}]}, "messages"),
    ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}, "tools"),
    ({"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, "tools"),
    ({"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["f"]}}]}, "tools"),
    ({"tools": [{"type": "tool_use", "x": {"file_id": "f"}}]}, "tools"),
    ({"container": {"id": "cntr_1"}}, "container"),
    ({"input": [{"id": "msg_1"}]}, "input"),
    ({"input": [{"role": "user", "content": "x"}, {"id": "msg_1", "type": None}]}, "input"),
    ({"input": ["x", 5, [1], {"id": "msg_1", "content": None}]}, "input"),
]


@pytest.mark.parametrize(("document", "param"), SHARED)
def test_stored_things_are_refused_where_tenants_share(document: Any, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check(ResponseOwners(is_shared=True), document)

    assert caught.value.param == param
    assert check(ResponseOwners(is_shared=False), document) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"input":[{"file\\u005fid":"file_1"}]}',
        b'{"input":[{"\\u0069d":"msg_1"}]}',
        b'{"input":[{"type":"item\\u005freference","id":"x"}]}',
        b'{"tools":[{"\\u0063ontainer":"cntr_1"}]}',
        b'{"tools":[{"vector_store_\\u0069\\u0064s":["vs_1"]}]}',
        b'{"\\u0063onversation":"conv_1"}',
        b'{"previous_response\\u005fid":"resp_1"}',
    ],
)
def test_an_escaped_name_is_found_too(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        check(ResponseOwners(is_shared=True), None, body=body)


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"9" * 5000])
@pytest.mark.parametrize(
    "layout",
    [
        b'{"conversation":%b}',
        b'{"prompt":{"id":%b}}',
        b'{"previous_response_id":%b}',
        b'{"tools":[{"file_id":null},%b]}',
    ],
)
def test_a_number_that_cannot_be_read_is_a_client_error(layout: bytes, number: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        check(ResponseOwners(is_shared=True), None, body=layout % number)


def test_an_id_that_is_no_text_is_a_client_error() -> None:
    with pytest.raises(InvalidRequestError, match="must be a string"):
        check(ResponseOwners(is_shared=True), {"previous_response_id": 7})


def test_what_is_too_much_to_walk_is_refused() -> None:
    body = b'{"tools":[{"file_id":null},' + b"0," * 300_000 + b"0]}"

    with pytest.raises(InvalidRequestError, match="too many elements"):
        check(ResponseOwners(is_shared=True), None, body=body)


def test_an_id_that_is_too_long_is_not_kept() -> None:
    owners = ResponseOwners(is_shared=True)
    owners.remember("r" * 257, ACME, "openai/gpt-5")

    with pytest.raises(InvalidRequestError):
        check(owners, {"previous_response_id": "r" * 257})


def test_the_oldest_of_too_many_is_forgotten() -> None:
    owners = ResponseOwners(is_shared=True, max_responses=2)
    for n in range(3):
        owners.remember(f"resp_{n}", ACME, "openai/gpt-5")

    assert check(owners, {"previous_response_id": "resp_2"}) == "openai/gpt-5"
    with pytest.raises(InvalidRequestError):
        check(owners, {"previous_response_id": "resp_0"})


@pytest.mark.parametrize(
    "document",
    [
        {"input": "please read file_id and vector_store_ids"},
        {"input": 'say "file_id": 5'},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
        {"input": [{"file_id": None}]},
        {"prompt": {"variables": {}}},
        {"background": False},
        {"background": "transparent"},
        {"prompt": "Say this is a test"},
        {"prompt": ["Say", "this"]},
        {"conversation": None},
        {"metadata": {"file_id": "mine"}},
        {"tools": [{"output": {"properties": {"file_id": {"type": "string"}, "container": {"type": "string"}}}}]},
        {"input": ["x", 5, [1], None, 1.5, True, {"id": "msg_1", "content": "earlier"}]},
        {
            "tools": [
                {"function": {"parameters": {"properties": {"file_id": {"type": "string"}}, "x": {"file_id": "e"}}}}
            ]
        },
        {"tools": [{"input_schema": {"properties": {"container": {"type": "string"}}, "required": ["file_id"]}}]},
        {"messages": [{"content": [{"type": "tool_use", "id": "t", "input": {"file_id": "mine", "container": "x"}}]}]},
        {"input": [{"type": "message", "id": "msg_1", "role": "assistant", "content": []}]},
        {"input": [{"id": "msg_1", "role": "assistant", "content": "earlier"}]},
        {"input": [{"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"}]},
        {"input": 'text with "id" and caf\u00e9'},
        {"messages": [{"role": "user", "content": 'caf\u00e9 _ "container"'}]},
    ],
)
def test_words_that_only_look_like_it_pass(document: Any) -> None:
    assert check(ResponseOwners(is_shared=True), document) is None
