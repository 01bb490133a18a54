"""Stored provider resources belong to the tenant that made them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from gateway_middleware.core.domain import Deployment, Route, Surface, Tenant
from gateway_middleware.core.errors import InvalidRequestError, ResponseNotFoundError, UnavailableError
from gateway_middleware.fleet.entries import Owner
from gateway_middleware.fleet.owners import StoredOwners
from gateway_middleware.fleet.store import StoreAwayError
from gateway_middleware.intake.ownership import NOT_STORED, OwnerStore, ResponseOwners
from gateway_middleware.intake.parsing import parse

ACME, OTHER = Tenant(name="acme"), Tenant(name="other")


def book(store: OwnerStore | None = None, *, is_shared: bool = True) -> ResponseOwners:
    return ResponseOwners(store or StoredOwners(()), is_shared=is_shared)


def check(
    owners: ResponseOwners,
    document: Any,
    tenant: Tenant = ACME,
    *,
    body: bytes | None = None,
    providers: Sequence[str] = ("openai",),
) -> str | None:
    body = json.dumps(document).encode() if body is None else body
    route = Route(name="r", deployments=tuple(Deployment(provider=p, model="gpt-5") for p in providers))
    references = owners.references(Surface.RESPONSES, parse(body, b"application/json", Surface.RESPONSES), route)
    return asyncio.run(owners.holder(references, tenant)) if references else None


class Away:
    """A store that cannot be asked."""

    def remember(self, ids: Iterable[str], owner: Owner) -> None:
        raise AssertionError

    def forget(self, ids: Iterable[str]) -> None:
        raise AssertionError

    async def find(self, ids: Sequence[str]) -> Mapping[str, Owner]:
        raise StoreAwayError("away")

    async def current(self, resource_id: str) -> Owner | None:
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
        b'{"type":"item_reference","id":["msg_1"]}',
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


def test_an_id_that_is_no_text_is_a_client_error() -> None:
    with pytest.raises(InvalidRequestError, match="must be a string"):
        check(book(), {"previous_response_id": 7})
    with pytest.raises(InvalidRequestError, match="must be a string"):
        check(book(is_shared=False), {"previous_response_id": 7})


@pytest.mark.parametrize(
    "document",
    [
        {"input": [{"type": "image_generation_call", "id": "item_1", "status": "completed"}]},
        {"input": [{"type": "reasoning", "id": "item_1", "summary": []}]},
        {"input": [{"type": "code_interpreter_call", "code": "1", "container_id": "item_1"}]},
        {"tools": [{"type": "code_interpreter", "container": "item_1"}]},
        {"prompt_cache_options": {"comparison_response_id": "item_1"}},
    ],
)
def test_whatever_stands_for_something_stored_belongs_to_one_tenant(document: Any) -> None:
    owners = book()
    owners.remember(["item_1"], ACME, "openai/gpt-5")

    assert check(owners, document) == "openai/gpt-5"
    with pytest.raises(InvalidRequestError) as caught:
        check(owners, document, OTHER)
    assert caught.value.param == next(iter(document))


FOREIGN = {"conversation": "conv_1", "input": [{"type": "of_tomorrow", "ref": "x_1"}]}


def test_a_tenant_alone_is_not_checked() -> None:
    assert check(book(is_shared=False), FOREIGN) is None


def test_a_provider_that_keeps_nothing_is_not_checked() -> None:
    owners = ResponseOwners(StoredOwners(()), is_shared=True, stateless=frozenset({"vllm", "tgi"}))

    assert check(owners, FOREIGN, providers=["vllm"]) is None
    assert check(owners, FOREIGN, providers=["vllm", "tgi"]) is None
    with pytest.raises(InvalidRequestError):
        check(owners, FOREIGN, providers=["vllm", "openai"])


def test_a_form_is_checked_as_well() -> None:
    surface, kind = Surface.AUDIO_TRANSCRIPTIONS, b"multipart/form-data; boundary=b"
    route = Route(name="r", deployments=(Deployment(provider="openai", model="whisper-1"),))
    part = b'--b\r\ncontent-disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    body = part % (b"model", b"whisper-1") + part % (b"file_id", b"file_1") + b"--b--\r\n"

    with pytest.raises(InvalidRequestError) as caught:
        book().references(surface, parse(body, kind, surface), route)
    assert caught.value.param == "file_id"
    assert book(is_shared=False).references(surface, parse(body, kind, surface), route) == {}


def place(owners: ResponseOwners, tenant: Tenant = ACME) -> str | None:
    return asyncio.run(owners.place_of("resp_1", tenant))


@pytest.mark.parametrize("tenant", [ACME, OTHER])
def test_one_tenant_alone_is_told_where_a_response_is_if_that_is_known(tenant: Tenant) -> None:
    owners = book(is_shared=False)
    assert place(owners, tenant) is None
    owners.remember(["resp_1"], ACME, "openai/gpt-5")
    assert place(owners, tenant) == "openai/gpt-5"
    owners.forget("resp_1")
    assert place(owners, tenant) is None
    assert place(book(Away(), is_shared=False), tenant) is None


def test_of_several_each_is_told_of_its_own() -> None:
    owners = book()
    owners.remember(["resp_1"], ACME, "openai/gpt-5")
    assert place(owners) == "openai/gpt-5"
    for asked, tenant in ((owners, OTHER), (book(), ACME)):
        with pytest.raises(ResponseNotFoundError) as caught:
            place(asked, tenant)
        assert (caught.value.message, caught.value.error_code) == ("Response with id 'resp_1' not found.", None)
    with pytest.raises(UnavailableError):
        place(book(Away()))


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_translated_response_is_known_to_be_stored_nowhere(is_shared: bool) -> None:
    owners = book(is_shared=is_shared)
    owners.remember(["resp_1"], ACME, NOT_STORED)
    with pytest.raises(ResponseNotFoundError, match=r"not found\. It came from a provider") as missing:
        place(owners)
    with pytest.raises(InvalidRequestError, match="stored nowhere") as refused:
        check(owners, {"previous_response_id": "resp_1"})
    assert (missing.value.error_code, refused.value.error_code) == ("response_not_stored", "response_not_stored")
