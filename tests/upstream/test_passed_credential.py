"""The caller's own credential, in the header that its provider reads."""

from __future__ import annotations

import pytest

from gateway_middleware.core.client_credential import ClientCredential
from gateway_middleware.core.domain import Dialect, ModelRequest, Route, Surface
from gateway_middleware.core.errors import AuthenticationError
from gateway_middleware.core.provider_api import Auth, Origin, UpstreamRequest, UpstreamTarget
from gateway_middleware.core.secret import Secret
from gateway_middleware.upstream.passed_credential import PassedCredential
from scripted import ScriptedAnswer

pytestmark = pytest.mark.anyio
OPENAI, ANTHROPIC, AZURE = Dialect.OPENAI, Dialect.ANTHROPIC, Dialect.AZURE
BEARER, X_API_KEY, API_KEY = (b"authorization", b"Bearer %b"), (b"x-api-key", b"%b"), (b"api-key", b"%b")
KEY, TOKEN = "sk-own-0123456789", "eyJhbGciOi.eyJzdWIi.c2ln"
UPSTREAM = UpstreamRequest(
    target=UpstreamTarget.build(Origin(host="x.test", port=443, is_tls=True), "/v1/x", ()),
    body=b"{}",
    headers=((b"anthropic-beta", b"oauth-2025-04-20"),),
)


def request(dialect: Dialect, own: ClientCredential | None) -> ModelRequest:
    route = Route(name="m", deployments=())
    return ModelRequest(
        surface=Surface.CHAT, dialect=dialect, model="m", route=route, body=b"{}", fields={}, client_credential=own
    )


@pytest.mark.parametrize(
    ("provider", "auth", "client", "is_bearer", "secret", "sent"),
    [
        (ANTHROPIC, None, ANTHROPIC, True, KEY, BEARER),
        (ANTHROPIC, None, ANTHROPIC, False, KEY, X_API_KEY),
        (ANTHROPIC, None, OPENAI, True, KEY, X_API_KEY),
        (ANTHROPIC, None, AZURE, False, KEY, X_API_KEY),
        (ANTHROPIC, Auth.NONE, ANTHROPIC, True, KEY, BEARER),
        (ANTHROPIC, Auth.BEARER, ANTHROPIC, False, KEY, BEARER),
        (ANTHROPIC, Auth.API_KEY, ANTHROPIC, True, KEY, API_KEY),
        (OPENAI, None, OPENAI, True, KEY, BEARER),
        (OPENAI, None, OPENAI, False, KEY, BEARER),
        (OPENAI, None, ANTHROPIC, False, KEY, BEARER),
        (AZURE, None, AZURE, False, KEY, API_KEY),
        (AZURE, None, AZURE, True, KEY, BEARER),
        (AZURE, None, OPENAI, True, KEY, API_KEY),
        (AZURE, None, OPENAI, True, TOKEN, BEARER),
    ],
)
async def test_forms(
    provider: Dialect, auth: Auth | None, client: Dialect, is_bearer: bool, secret: str, sent: tuple[bytes, bytes]
) -> None:
    opened: list[UpstreamRequest] = []

    async def first(upstream: UpstreamRequest) -> ScriptedAnswer:
        opened.append(upstream)
        return ScriptedAnswer(200, [], [])

    own = ClientCredential(Secret(secret), is_bearer=is_bearer)
    await PassedCredential(auth, provider).open(UPSTREAM, request(client, own), first, first)
    name, form = sent
    assert [upstream.headers for upstream in opened] == [(*UPSTREAM.headers, (name, form % secret.encode()))]


@pytest.mark.parametrize("asked", [None, request(OPENAI, None)])
async def test_without_one_nobody_is_asked(asked: ModelRequest | None) -> None:
    async def first(_: UpstreamRequest) -> ScriptedAnswer:
        raise AssertionError

    with pytest.raises(AuthenticationError):
        await PassedCredential(None, OPENAI).open(UPSTREAM, asked, first, first)
