"""Stored provider resources belong to the tenant that made them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from gateway_middleware.core.domain import Tenant
from gateway_middleware.core.errors import InvalidRequestError, UnavailableError
from gateway_middleware.fleet.entries import Owner
from gateway_middleware.fleet.owners import StoredOwners
from gateway_middleware.fleet.store import StoreAwayError
from gateway_middleware.intake.ownership import OwnerStore, ResponseOwners
from gateway_middleware.intake.parsing import parse_fields

ACME, OTHER = Tenant(name="acme"), Tenant(name="other")


def book(store: OwnerStore | None = None, *, is_shared: bool = True) -> ResponseOwners:
    return ResponseOwners(store or StoredOwners(()), is_shared=is_shared)


def check(owners: ResponseOwners, document: Any, tenant: Tenant = ACME, *, body: bytes | None = None) -> str | None:
    body = json.dumps(document).encode() if body is None else body
    references = owners.references(parse_fields(body), body)
    return None if references is None else asyncio.run(owners.holder(references, tenant))


class Away:
    """A store that cannot be asked."""

    def remember(self, ids: Iterable[str], owner: Owner) -> None:
        raise AssertionError

    async def find(self, ids: Sequence[str]) -> Mapping[str, Owner]:
        raise StoreAwayError("away")


def test_a_response_goes_back_to_its_deployment_for_its_tenant_only() -> None:
    owners = book()
    owners.remember(["resp_1"], ACME, "openai/gpt-5")

    assert check(owners, {"previous_response_id": "resp_1"}) == "openai/gpt-5"
    with pytest.raises(InvalidRequestError) as caught:
        check(owners, {"previous_response_id": "resp_1"}, OTHER)
    assert caught.value.param == "previous_response_id"


def test_an_unknown_response_is_refused_only_where_tenants_share() -> None:
    with pytest.raises(InvalidRequestError):
        check(book(), {"previous_response_id": "resp_x"})
    assert check(book(is_shared=False), {"previous_response_id": "resp_x"}) is None
    assert check(book(), {"previous_response_id": None}) is None


@pytest.mark.parametrize(
    "reference",
    [
        {"type": "item_reference", "id": "msg_1"},
        {"id": "msg_1"},
        {"id": "msg_1", "type": None, "content": None},
    ],
)
def test_an_item_is_referred_to_by_its_own_tenant_only(reference: Any) -> None:
    owners = book()
    owners.remember(["resp_1", "msg_1"], ACME, "openai/gpt-5")
    document = {"input": [{"role": "user", "content": "go on"}, reference]}

    assert check(owners, document) == "openai/gpt-5"
    with pytest.raises(InvalidRequestError) as caught:
        check(owners, document, OTHER)
    assert caught.value.param == "input"


def test_every_item_has_to_be_the_tenants_own() -> None:
    owners = book()
    owners.remember(["msg_1"], ACME, "openai/gpt-5")
    owners.remember(["msg_2"], OTHER, "openai/gpt-5")
    own, foreign = ({"type": "item_reference", "id": f"msg_{n}"} for n in (1, 2))

    with pytest.raises(InvalidRequestError):
        check(owners, {"input": [own, foreign]})
    with pytest.raises(InvalidRequestError):
        check(owners, {"previous_response_id": "msg_1", "input": [foreign]})
    assert check(owners, {"previous_response_id": "msg_1", "input": [own, own]}) == "openai/gpt-5"


@pytest.mark.parametrize(
    "item",
    [
        b'{"type":"item_reference","id":"msg_1","file_id":"file_1"}',
        b'{"type":"item_reference","id":"msg_1","content":[{"file_id":"file_1"}]}',
        b'{"type":"item_reference","id":"msg_2","id":"msg_1"}',
        b'{"type":"item_reference","id":"msg_1","\\u0069d":"msg_2"}',
        b'{"type":"item_reference","id":"\\u006dsg_1"}',
        b'{"type":"item_reference","id":["msg_1"]}',
        b'{"id":"msg_1","status":"completed"}',
        b'{"id":5}',
        b'[{"type":"item_reference","id":"msg_1"}]',
        b'{"type":"message","content":[{"type":"item_reference","id":"msg_1"}]}',
    ],
)
def test_a_reference_that_could_be_read_in_another_way_is_refused(item: bytes) -> None:
    owners = book()
    owners.remember(["msg_1"], ACME, "openai/gpt-5")
    with pytest.raises(InvalidRequestError):
        check(owners, None, body=b'{"input":[%b]}' % item)


def test_a_reference_outside_of_a_list_is_refused() -> None:
    owners = book()
    owners.remember(["msg_1"], ACME, "openai/gpt-5")
    with pytest.raises(InvalidRequestError):
        check(owners, {"input": {"type": "item_reference", "id": "msg_1"}})
    with pytest.raises(InvalidRequestError):
        check(owners, {"tools": [{"type": "item_reference", "id": "msg_1"}]})


def test_too_many_references_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="more than 1000"):
        check(book(), {"input": [{"type": "item_reference", "id": f"msg_{n}"} for n in range(1001)]})


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input"),
    ],
)
def test_while_nobody_can_say_a_call_is_refused_where_tenants_share(document: Any, param: str) -> None:
    with pytest.raises(UnavailableError) as caught:
        check(book(Away()), document)
    assert (caught.value.param, caught.value.retry_after) == (param, 1.0)
    assert check(book(Away(), is_shared=False), document) is None
    assert check(book(Away()), {"input": "nothing stored"}) is None


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
        check(book(), document)

    assert caught.value.param == param
    assert check(book(is_shared=False), document) is None


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
        check(book(), None, body=body)


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
        check(book(), None, body=layout % number)


def test_an_id_that_is_no_text_is_a_client_error() -> None:
    with pytest.raises(InvalidRequestError, match="must be a string"):
        check(book(), {"previous_response_id": 7})


def test_what_is_too_much_to_walk_is_refused() -> None:
    body = b'{"tools":[{"file_id":null},' + b"0," * 300_000 + b"0]}"

    with pytest.raises(InvalidRequestError, match="too many elements"):
        check(book(), None, body=body)


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
    assert check(book(), document) is None
