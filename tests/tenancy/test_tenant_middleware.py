"""The door: which endpoint opens to which credential, in the stack and alone on a foreign app."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asgi_driver import Transcript, drive
from gateway_middleware.core.asgi import Receive, Scope, Send
from gateway_middleware.core.domain import Dialect, Surface, Tenant
from gateway_middleware.core.endpoints import Access, Endpoint
from gateway_middleware.core.errors import AuthenticationError, GatewayError, PermissionDeniedError
from gateway_middleware.core.record import CallRecord
from gateway_middleware.core.scope import ENDPOINT, RECORD, TENANT
from gateway_middleware.tenancy.keys import digest
from gateway_middleware.tenancy.middleware import TenantMiddleware
from gateway_middleware.tenancy.resolvers import ApiKeyResolver, Credential, OpenResolver, ScopeUserResolver

pytestmark = pytest.mark.anyio

KEY = {"authorization": "Bearer tenant-key"}
ADMIN = {"authorization": "Bearer admin-token"}
METRICS = {"authorization": "Bearer metrics-token"}
RESOLVER = ApiKeyResolver([(Tenant(name="acme"), [digest(b"tenant-key")])])


class App:
    """Answers 200 and keeps the tenants it saw."""

    def __init__(self) -> None:
        self.tenants: list[Tenant | None] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.tenants.append(TENANT.peek(scope))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"in"})


def endpoint(access: Access) -> Endpoint:
    return Endpoint(label="x", path="/x", methods=("GET",), access=access, dialect=Dialect.OPENAI, surface=Surface.CHAT)


async def knock(access: Access, headers: Any, **options: Any) -> tuple[str | None, CallRecord, App]:
    """The tenant that came in, after a call below an EdgeMiddleware."""
    app, record = App(), CallRecord(request_id="r", started=0.0, received_at=0.0)
    options = {"resolver": RESOLVER} | options
    scope: dict[str, Any] = {RECORD.slot: record, ENDPOINT.slot: endpoint(access)}
    answer = await drive(TenantMiddleware(app, **options), headers=headers, **scope)
    assert answer.status == 200
    (tenant,) = app.tenants
    return tenant.name if tenant else None, record, app


async def refused(kind: type[GatewayError], access: Access, headers: Any, **options: Any) -> GatewayError:
    with pytest.raises(kind) as caught:
        await knock(access, headers, **options)
    return caught.value


TOKENS = {"admin_token": "admin-token", "metrics_token": "metrics-token"}


async def test_a_tenant_comes_in_and_is_on_record() -> None:
    name, record, _ = await knock(Access.TENANT, KEY)
    assert name == "acme"
    assert (record.tenant, record.key_id) == ("acme", digest(b"tenant-key")[7:15])


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "wrong"}, ADMIN, METRICS, {"authorization": "Basic x"}])
async def test_nobody_else_comes_in(headers: Any) -> None:
    await refused(AuthenticationError, Access.TENANT, headers, **TOKENS)


@pytest.mark.parametrize("headers", [{}, KEY, {"x-api-key": "wrong"}, {"authorization": "Basic x"}])
async def test_open_is_open(headers: Any) -> None:
    name, record, _ = await knock(Access.OPEN, headers, **TOKENS)
    assert name is None
    assert record.tenant is None


async def test_metrics_are_open_without_a_token_and_closed_with_one() -> None:
    assert (await knock(Access.METRICS, {}))[0] is None
    assert (await knock(Access.METRICS, METRICS, **TOKENS))[0] is None
    await refused(AuthenticationError, Access.METRICS, {}, **TOKENS)
    for headers in (KEY, ADMIN, {"x-api-key": "wrong"}):
        await refused(PermissionDeniedError, Access.METRICS, headers, **TOKENS)


async def test_se23_administration_needs_its_token() -> None:
    assert (await knock(Access.ADMIN, ADMIN, **TOKENS))[0] is None
    assert (await knock(Access.ADMIN, {"x-api-key": "admin-token"}, **TOKENS))[0] is None
    await refused(AuthenticationError, Access.ADMIN, {}, **TOKENS)
    for headers in (KEY, METRICS, {"x-api-key": "admin-toke"}, {"x-api-key": "admin-token1"}):
        await refused(PermissionDeniedError, Access.ADMIN, headers, **TOKENS)


@pytest.mark.parametrize("headers", [{}, KEY, ADMIN, {"authorization": "Bearer None"}])
async def test_administration_without_a_token_is_disabled(headers: Any) -> None:
    error = await refused(PermissionDeniedError, Access.ADMIN, headers)
    assert "disabled" in error.message


@pytest.mark.parametrize("name", ["admin_token", "metrics_token"])
def test_an_empty_token_is_refused_at_start(name: str) -> None:
    options: dict[str, Any] = {name: ""}
    with pytest.raises(ValueError, match="empty"):
        TenantMiddleware(App(), resolver=RESOLVER, **options)


async def test_a_resolver_may_be_a_coroutine_function() -> None:
    async def by_path(credential: Credential | None, scope: Scope) -> Tenant | None:
        await asyncio.sleep(0)
        return Tenant(name=scope["path"]) if credential is not None else None

    assert (await knock(Access.TENANT, KEY, resolver=by_path))[0] == "/"
    await refused(AuthenticationError, Access.TENANT, {}, resolver=by_path)


async def test_a_resolver_may_say_none() -> None:
    await refused(AuthenticationError, Access.TENANT, KEY, resolver=lambda *_: None)


@pytest.mark.parametrize("headers", [{}, KEY, {"authorization": "Basic x"}, {"x-api-key": "a", "api-key": "b"}])
async def test_open_and_user_resolvers_look_at_no_credential(headers: Any) -> None:
    assert (await knock(Access.TENANT, headers, resolver=OpenResolver()))[0] == "open"
    with pytest.raises(AuthenticationError, match="not authenticated"):
        await knock(Access.TENANT, headers, resolver=ScopeUserResolver("name"))


async def alone(headers: Any, **options: Any) -> tuple[Transcript, App]:
    app = App()
    return await drive(TenantMiddleware(app, resolver=RESOLVER, **options), path="/metrics", headers=headers), app


async def test_alone_on_a_foreign_app_every_call_needs_a_tenant() -> None:
    answer, app = await alone(KEY)
    assert (answer.status, answer.body) == (200, b"in")
    assert app.tenants == [Tenant(name="acme", key_id=digest(b"tenant-key")[7:15])]

    answer, app = await alone({})
    assert (answer.status, answer.is_complete, app.tenants) == (401, True, [])
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-length"] == str(len(answer.body))


async def test_the_host_can_word_the_refusal() -> None:
    answer, _ = await alone({}, on_reject=lambda error: (418, [(b"x-why", error.kind.encode())], b"no"))
    assert (answer.status, answer.body, answer.headers) == (418, b"no", {"x-why": "invalid_request_error"})


async def test_an_error_of_the_app_itself_is_not_taken_for_a_refusal() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise PermissionDeniedError("the app's own")

    with pytest.raises(PermissionDeniedError):
        await drive(TenantMiddleware(app, resolver=RESOLVER), headers=KEY)


@pytest.mark.parametrize(("kind", "passes"), [("websocket", False), ("lifespan", True), ("webtransport", False)])
async def test_only_http_and_lifespan(kind: str, passes: bool) -> None:
    seen: list[str] = []
    sent: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await TenantMiddleware(app, resolver=RESOLVER)({"type": kind}, receive, send)
    assert bool(seen) is passes
    assert sent == ([{"type": "websocket.close", "code": 1008}] if kind == "websocket" else [])


async def test_a_resolver_may_change_its_mind_about_credentials() -> None:
    class Doorman:
        ignores_credentials = True

        def __call__(self, credential: Credential | None, scope: Scope) -> Tenant:
            return Tenant(name="nobody" if credential is None else "somebody")

    doorman, app = Doorman(), App()
    layer = TenantMiddleware(app, resolver=doorman)
    two_keys = {**KEY, "x-api-key": "another"}
    await drive(layer, headers=two_keys)
    doorman.ignores_credentials = False
    refusal = await drive(layer, headers=two_keys)
    await drive(layer, headers=KEY)
    assert [tenant.name for tenant in app.tenants if tenant] == ["nobody", "somebody"]
    assert refusal.status == 401


def test_a_forgotten_resolver_is_said_when_the_app_is_built() -> None:
    build: Any = TenantMiddleware
    with pytest.raises(TypeError, match="resolver"):
        build(App())


async def test_alone_whoever_may_not_is_told_so_without_a_challenge() -> None:
    def closed(credential: Credential | None, scope: Scope) -> Tenant:
        raise PermissionDeniedError("The tenant is suspended.")

    answer = await drive(TenantMiddleware(App(), resolver=closed), headers=KEY)
    assert (answer.status, answer.json()["error"]["message"]) == (403, "The tenant is suspended.")
    assert "www-authenticate" not in answer.headers
