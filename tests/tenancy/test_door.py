"""Edge and tenant together: no spelling of a path and no credential that is not one gets in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from asgi_driver import Transcript, drive
from gateway_middleware.core.asgi import Receive, Scope, Send
from gateway_middleware.core.domain import Dialect, Tenant
from gateway_middleware.core.endpoints import ENDPOINTS, Access, locate
from gateway_middleware.core.scope import TENANT
from gateway_middleware.edge.access_log import AccessLog
from gateway_middleware.edge.middleware import EdgeMiddleware
from gateway_middleware.tenancy.keys import digest
from gateway_middleware.tenancy.middleware import TenantMiddleware
from gateway_middleware.tenancy.resolvers import ApiKeyResolver

CLOSED = [e for e in ENDPOINTS if e.access is Access.TENANT]
KEY = "tenant-key-that-must-not-be-seen"


async def secret_app(scope: Scope, receive: Receive, send: Send) -> None:
    assert TENANT.get(scope).name == "acme"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def gateway(log: AccessLog | None = None) -> EdgeMiddleware:
    resolver = ApiKeyResolver([(Tenant(name="acme"), [digest(KEY.encode())])])
    door = TenantMiddleware(secret_app, resolver=resolver, admin_token="admin", metrics_token="metrics")
    return EdgeMiddleware(door, access_log=log)


def run(call: Awaitable[Transcript]) -> Transcript:
    async def main() -> Transcript:
        return await call

    return asyncio.run(main())


def concrete(path: str) -> str:
    return path.replace("{argument:path}", "m").replace("{argument}", "m")


@pytest.mark.parametrize("endpoint", CLOSED, ids=lambda e: e.path)
def test_every_closed_endpoint_asks_who_is_there(endpoint: Any) -> None:
    path = concrete(endpoint.path)
    headers = {"authorization": f"Bearer {KEY}"}
    assert run(drive(gateway(), method=endpoint.methods[0], path=path, headers=headers)).status == 200

    answer = run(drive(gateway(), method=endpoint.methods[0], path=path))
    assert answer.status == 401
    assert ("type" in answer.json()) is (endpoint.dialect is Dialect.ANTHROPIC)


SPELLINGS = st.sampled_from(["//", "/./", "/../", "%2f", "%2F", ";x", "/", "?", "%61", "%00", ".", "\\", "#", " "])


@given(st.data())
def test_se9_no_spelling_of_a_path_is_served_without_a_key(data: Any) -> None:
    path = concrete(data.draw(st.sampled_from(CLOSED)).path)
    if data.draw(st.booleans()):
        path = path.swapcase()
    for _ in range(data.draw(st.integers(1, 3))):
        cut = data.draw(st.integers(0, len(path)))
        path = path[:cut] + data.draw(SPELLINGS) + path[cut + data.draw(st.integers(0, 1)) :]
    method = data.draw(st.sampled_from(["GET", "POST", "HEAD"]))
    decoded = unquote(path)
    found = locate(decoded)
    is_open = found is not None and found.access is Access.OPEN and method in found.methods
    if is_open:
        return
    assert run(drive(gateway(), method=method, path=decoded)).status in (401, 404, 405)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": ""},
        {"x-api-key": "a" * 1_000_000},
        {"x-api-key": "schlüssel"},
        {"x-api-key": "one", "authorization": "Bearer two"},
        {"authorization": "Basic dXNlcjpwYXNz"},
        {"x-api-key": "admin"},
        {"x-api-key": "metrics"},
        {"x-api-key": digest(KEY.encode())},
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/openai/v1/embeddings"])
def test_se16_what_is_no_key_of_ours_is_401_of_one_shape(headers: dict[str, str], path: str) -> None:
    answer = run(drive(gateway(), method="POST", path=path, headers=headers, query=b"api-key=" + KEY.encode()))
    assert answer.status == 401
    document = answer.json()
    expected = ["error", "request_id", "type"] if path == "/v1/messages" else ["error"]
    assert sorted(document) == expected
    inner = ["message", "type"] if path == "/v1/messages" else ["code", "message", "param", "type"]
    assert sorted(document["error"]) == inner


@given(st.text(max_size=300), st.binary(max_size=100))
def test_se19_no_key_is_in_answers_or_logs(path: str, request_id: bytes) -> None:
    written: list[bytes] = []
    headers = [(b"authorization", b"Bearer " + KEY.encode()), (b"x-request-id", request_id)]
    log = AccessLog(written.append)
    app = gateway(log)
    text = unquote(quote(path, errors="replace"))
    assume(locate(text) is None)

    async def two_calls() -> list[Transcript]:
        query = b"key=" + KEY.encode()
        paths = (text, "/v1/embeddings")
        return [await drive(app, method="POST", path=p, headers=headers, query=query) for p in paths]

    answers = asyncio.run(two_calls())
    log.close()
    logged = b"".join(written)
    lines = [json.loads(line) for line in logged.decode().splitlines()]
    assert [line.get("tenant") for line in lines] == [None, "acme"]
    assert KEY.encode() not in logged
    assert all(KEY.encode() not in a.body for a in answers)
