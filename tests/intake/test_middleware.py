"""Intake as a layer: what it sets, what it hands on."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_driver import Transcript, drive
from gateway_middleware.core.domain import Deployment, Route, Surface, Tenant
from gateway_middleware.core.errors import ClientDisconnectedError
from gateway_middleware.core.provider_api import ProviderConfig
from gateway_middleware.core.record import Attempt, CallRecord
from gateway_middleware.core.scope import RECORD, REQUEST, TENANT
from gateway_middleware.core.secret import Secret
from gateway_middleware.edge.middleware import EdgeMiddleware
from gateway_middleware.fleet.owners import StoredOwners
from gateway_middleware.intake.middleware import IntakeMiddleware
from gateway_middleware.intake.ownership import ResponseOwners
from gateway_middleware.intake.routing import RouteTable
from gateway_middleware.providers import OpenAIProvider
from provider_calls import KEY

pytestmark = pytest.mark.anyio
ROUTE = Route(
    name="fast", deployments=(Deployment(provider="openai", model="a"), Deployment(provider="openai", model="b"))
)


CONFIG = ProviderConfig(name="openai", kind="openai", base_url="https://h/v1", api_key=Secret(KEY))


class Everywhere(OpenAIProvider):
    """A provider for every surface."""

    __slots__ = ()

    def supports(self, surface: Surface) -> bool:
        return True


def table() -> RouteTable:
    return RouteTable({"fast": ROUTE}, {"openai": Everywhere(CONFIG)})


class Inner:
    """Stands for everything inside; notes what it is given."""

    def __init__(self) -> None:
        self.request: Any = None
        self.body = b""
        self.response_id: str | None = None
        self.error: Exception | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.request = REQUEST.peek(scope)
        self.body = (await receive()).get("body", b"")
        record: CallRecord = RECORD.get(scope)
        if self.response_id is not None:
            attempt = Attempt(deployment=ROUTE.deployments[1], started=0.0, response_id=self.response_id)
            attempt.item_ids = ("msg_1",)
            record.attempts += [attempt, Attempt(deployment=ROUTE.deployments[0], started=0.0)]
            record.answered_by = attempt
        if self.error is not None:
            raise self.error
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


class AsTenant:
    def __init__(self, app: Any, tenant: Tenant) -> None:
        self.app = app
        self.tenant = tenant

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        TENANT.set(scope, self.tenant)
        await self.app(scope, receive, send)


def stack(inner: Inner, owners: ResponseOwners | None = None, tenant: str = "acme") -> Any:
    return EdgeMiddleware(
        AsTenant(
            IntakeMiddleware(
                inner,
                table=table,
                max_body_bytes=1000,
                owners=owners or ResponseOwners(StoredOwners(()), is_shared=False),
            ),
            Tenant(name=tenant),
        )
    )


async def post(app: Any, path: str, body: bytes, **headers: str) -> Transcript:
    return await drive(
        app, method="POST", path=path, body=body, headers={"content-type": "application/json", **headers}
    )


async def test_the_request_is_set_and_the_body_can_be_read_again() -> None:
    inner = Inner()

    await post(stack(inner), "/v1/chat/completions", b'{"model":"fast","stream":true}', **{"openai-beta": "x"})

    assert inner.request.surface is Surface.CHAT
    assert inner.request.route is ROUTE
    assert inner.request.is_stream
    assert inner.request.headers == ((b"openai-beta", b"x"),)
    assert inner.body == inner.request.body == b'{"model":"fast","stream":true}'


async def test_only_listed_headers_go_on() -> None:
    inner = Inner()

    await post(
        stack(inner), "/v1/chat/completions", b'{"model":"fast"}',
        **{"cookie": "a=b", "x-forwarded-for": "1.2.3.4", "authorization": "Bearer x", "traceparent": "00-1"},
    )  # fmt: skip

    assert inner.request.headers == ((b"traceparent", b"00-1"),)


async def test_headers_of_anthropic_are_open_but_for_credentials() -> None:
    inner = Inner()
    beta = ",".join(f"feature-{number}-2026-01-01" for number in range(360))
    assert 8000 < len(beta) <= 8192
    await post(
        stack(inner), "/v1/messages", b'{"model":"fast"}',
        **{"anthropic-beta": beta, "anthropic-workspace-id": "w", "anthropic-authorization": "x", "x-api-key": "k",
           "anthropic-auth-token": "x", "anthropic-api-key": "x", "anthropicx": "x", "x-anthropic-billing": "x"},
    )  # fmt: skip
    assert dict(inner.request.headers) == {b"anthropic-beta": beta.encode(), b"anthropic-workspace-id": b"w"}


async def test_headers_of_anthropic_are_for_its_dialect() -> None:
    inner = Inner()
    await post(stack(inner), "/v1/chat/completions", b'{"model":"fast"}', **{"anthropic-workspace-id": "w"})
    assert inner.request.headers == ()


@pytest.mark.parametrize("value", ["a\tb", "ü", "x" * 8193])
async def test_a_listed_header_must_be_harmless(value: str) -> None:
    answer = await drive(
        stack(Inner()), method="POST", path="/v1/messages", body=b'{"model":"fast"}',
        headers=[(b"content-type", b"application/json"), (b"anthropic-beta", value.encode("latin-1"))],
    )  # fmt: skip

    assert answer.status == 400


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/v1/messages", [b"anthropic-version", b"anthropic-beta", b"tracestate"]),
        ("/v1/chat/completions", [b"openai-beta", b"tracestate"]),
        ("/openai/v1/chat/completions", [b"openai-beta", b"tracestate"]),
    ],
)
async def test_a_dialect_has_its_own_headers(path: str, kept: list[bytes]) -> None:
    inner = Inner()

    await post(
        stack(inner), path, b'{"model":"fast"}',
        **{"anthropic-version": "2023-06-01", "anthropic-beta": "a", "openai-beta": "b", "tracestate": "c=d"},
    )  # fmt: skip

    assert [name for name, _ in inner.request.headers] == kept


async def test_azure_names_the_model_in_the_path_and_the_body_may_say_anything() -> None:
    inner = Inner()

    await post(stack(inner), "/openai/deployments/fast/chat/completions", b'{"model":"not a name!","messages":[]}')

    assert inner.request.model == "fast"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{}", 400),
        (b'{"model":null}', 400),
        (b'{"model":"x y "}', 400),
        (b'{"model":"fast","x":"' + b"y" * 1000 + b'"}', 413),
    ],
)
async def test_refusals(body: bytes, status: int) -> None:
    inner = Inner()

    answer = await post(stack(inner), "/v1/chat/completions", body)

    assert answer.status == status
    assert inner.request is None


async def test_a_long_body_in_pieces_is_refused_at_the_limit() -> None:
    answer = await drive(
        stack(Inner()), method="POST", path="/v1/chat/completions", chunks=[b"x" * 400] * 4,
        headers={"content-type": "application/json"},
    )  # fmt: skip

    assert answer.status == 413


async def test_a_client_that_leaves_while_it_sends_is_no_request() -> None:
    inner = Inner()

    answer = await drive(
        stack(inner), method="POST", path="/v1/chat/completions", chunks=[b"{", b"}"], leave_after=0,
        headers={"content-type": "application/json"},
    )  # fmt: skip

    assert not answer.is_started
    assert inner.request is None


async def test_other_endpoints_pass() -> None:
    inner = Inner()

    answer = await drive(stack(inner), path="/healthz")

    assert answer.body == b"ok"
    assert inner.request is None


async def test_a_response_is_remembered_and_its_continuation_sticks() -> None:
    owners, inner = ResponseOwners(StoredOwners(()), is_shared=True), Inner()
    inner.response_id = "resp_1"
    await post(stack(inner, owners), "/v1/responses", b'{"model":"fast","input":"x"}')
    inner.response_id = None

    await post(stack(inner, owners), "/v1/responses", b'{"model":"fast","previous_response_id":"resp_1"}')
    other = await post(
        stack(Inner(), owners, "other"), "/v1/responses", b'{"model":"fast","previous_response_id":"resp_1"}'
    )

    assert [d.model for d in inner.request.route.deployments] == ["b"]
    assert other.status == 400


async def test_items_of_a_response_stick_too_and_are_the_tenants_own() -> None:
    owners, inner = ResponseOwners(StoredOwners(()), is_shared=True), Inner()
    inner.response_id = "resp_1"
    await post(stack(inner, owners), "/v1/responses", b'{"model":"fast","input":"x"}')
    inner.response_id = None
    body = b'{"model":"fast","input":[{"type":"item_reference","id":"msg_1"}]}'

    own = await post(stack(inner, owners), "/v1/responses", body)
    assert (own.status, [d.model for d in inner.request.route.deployments]) == (200, ["b"])
    assert (await post(stack(Inner(), owners, "other"), "/v1/responses", body)).status == 400


async def test_what_the_provider_does_not_store_is_not_remembered() -> None:
    store = StoredOwners(())
    inner = Inner()
    inner.response_id = "resp_1"
    app = stack(inner, ResponseOwners(store, is_shared=True))
    await post(app, "/v1/responses", b'{"model":"fast","input":"x","store":false}')
    assert not await store.find(["resp_1", "msg_1"])


async def test_a_response_that_its_client_did_not_wait_for_is_remembered_too() -> None:
    owners, inner = ResponseOwners(StoredOwners(()), is_shared=True), Inner()
    inner.response_id, inner.error = "resp_1", ClientDisconnectedError()
    await post(stack(inner, owners), "/v1/responses", b'{"model":"fast","input":"x"}')
    inner.response_id = inner.error = None

    await post(stack(inner, owners), "/v1/responses", b'{"model":"fast","previous_response_id":"resp_1"}')

    assert [d.model for d in inner.request.route.deployments] == ["b"]


async def test_what_intake_learns_is_in_the_record() -> None:
    seen: list[CallRecord] = []
    inner = Inner()
    app = EdgeMiddleware(
        AsTenant(
            IntakeMiddleware(
                inner, table=table, max_body_bytes=1000, owners=ResponseOwners(StoredOwners(()), is_shared=False)
            ),
            Tenant(name="acme"),
        ),
        observe=seen.append,
    )
    body = b'{"model":"openai/gpt-5","stream":true}'

    await post(app, "/v1/chat/completions", body)

    record = seen[0]
    assert (record.surface, record.model, record.route) == (Surface.CHAT, "openai/gpt-5", "openai/gpt-5")
    assert (record.is_stream, record.bytes_in) == (True, len(body))


async def test_after_the_body_a_layer_inside_hears_the_client_itself() -> None:
    messages: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        messages.append(await receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        messages.append(await receive())

    layer = IntakeMiddleware(
        inner, table=table, max_body_bytes=1000, owners=ResponseOwners(StoredOwners(()), is_shared=False)
    )
    app = EdgeMiddleware(AsTenant(layer, Tenant(name="acme")))
    await drive(
        app,
        method="POST",
        path="/v1/chat/completions",
        body=b'{"model":"fast"}',
        headers={"content-type": "application/json"},
        leave_after=1,
        catches=True,
    )
    assert [message["type"] for message in messages] == ["http.request", "http.disconnect"]


@pytest.mark.parametrize("body", [b'{"input":"x"}', b'{"input":"x","model":null}'])
async def test_where_a_model_need_not_be_named_it_is_the_providers_default(body: bytes) -> None:
    inner = Inner()
    assert (await post(stack(inner), "/v1/moderations", body)).status == 200
    assert (inner.request.model, inner.request.route.deployments[0].key) == (
        "omni-moderation-latest",
        "openai/omni-moderation-latest",
    )
    assert (await post(stack(Inner()), "/v1/embeddings", body)).status == 400
