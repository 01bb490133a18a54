"""Stored provider resources belong to the tenant that made them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway_middleware.domain import Tenant
from gateway_middleware.errors import InvalidRequestError
from gateway_middleware.intake.ownership import ResponseOwners
from gateway_middleware.intake.parsing import parse_fields

ACME, OTHER = Tenant(name="acme"), Tenant(name="other")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


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
    clock.now = 11

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
]


@pytest.mark.parametrize(("document", "param"), SHARED)
def test_stored_things_are_refused_where_tenants_share(document: Any, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check(ResponseOwners(is_shared=True), document)

    assert caught.value.param == param
    assert check(ResponseOwners(is_shared=False), document) is None


def test_an_escaped_name_is_found_too() -> None:
    body = b'{"input":[{"file\\u005fid":"file_1"}]}'

    with pytest.raises(InvalidRequestError):
        check(ResponseOwners(is_shared=True), None, body=body)


@pytest.mark.parametrize(
    "document",
    [
        {"input": "please read file_id and vector_store_ids"},
        {"input": 'say "file_id": 5'},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
        {"input": [{"file_id": None}]},
        {"prompt": {"variables": {}}},
        {"background": False},
    ],
)
def test_words_that_only_look_like_it_pass(document: Any) -> None:
    assert check(ResponseOwners(is_shared=True), document) is None
