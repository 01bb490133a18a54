"""What coding agents ask for besides model calls, on real sockets: a websocket, the root, headers of their own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from gateway_middleware.core.asgi import Message
from gateway_middleware.simulator import Simulator
from rig import MESSAGES, Rig, answering
from running import KEY, gateway_for

pytestmark = pytest.mark.anyio
KEY_BYTES = KEY.encode()
WEBSOCKET = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


async def raw(url: str, method: bytes, path: bytes, headers: bytes = b"") -> bytes:
    """The head and body of an answer, as they are on the wire."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"%b %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % (method, path, KEY_BYTES))
    writer.write(headers + (b"" if headers else b"Connection: close\r\n") + b"\r\n")
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0)
        body = b"" if method == b"HEAD" else await reader.readexactly(length)
    writer.close()
    return head + body


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (b"/v1/responses", WEBSOCKET, b"426"),
        (b"/openai/v1/responses", WEBSOCKET, b"426"),
        (b"/v1/responses", b"", b"405"),
        (b"/v1/chat/completions", WEBSOCKET, b"405"),
        (b"/v1/responses", b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"405"),
    ],
)
async def test_a_websocket_is_told_to_use_http(path: bytes, headers: bytes, status: bytes) -> None:
    async with gateway_for("http://127.0.0.1:9") as url:
        answer = await raw(url, b"GET", path, headers)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == status
    if status == b"426":
        assert b"upgrade: http/1.1" in head.lower()
        assert json.loads(body)["error"]["code"] == "websocket_not_supported"


@pytest.mark.parametrize(
    ("path", "extensions", "kinds"),
    [
        ("/v1/responses", {"websocket.http.response": {}}, ["http.response.start", "http.response.body"]),
        ("/v1/responses", {}, ["close"]),
        ("/v1/messages", {"websocket.http.response": {}}, ["close"]),
    ],
)
async def test_a_server_that_takes_it_for_a_websocket(path: str, extensions: Any, kinds: list[str]) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await Rig().gateway({"type": "websocket", "path": path, "headers": [], "extensions": extensions}, receive, send)
    assert [message["type"].removeprefix("websocket.") for message in sent] == kinds
    assert [message["status"] for message in sent[:-1]] == [426] * (len(sent) - 1)


async def test_the_root_is_alive() -> None:
    async with gateway_for("http://127.0.0.1:9") as url:
        head = await raw(url, b"HEAD", b"/")
        assert head.split(b" ")[1] == b"200"
        async with httpx.AsyncClient() as client:
            assert (await client.get(url)).json() == {"status": "ok"}


async def test_a_call_after_the_refusal_of_a_websocket_on_the_same_connection() -> None:
    async with Simulator().serve() as simulator, gateway_for(simulator.url) as url:
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}) as client:
            upgrade = {"connection": "upgrade", "upgrade": "websocket"}
            assert (await client.get(f"{url}/v1/responses", headers=upgrade)).status_code == 426
            answer = await client.post(f"{url}/v1/responses", json={"model": "gpt-5", "input": "hi"})
            assert answer.status_code == 200


async def test_open_headers_go_upstream_and_no_credential_does() -> None:
    rig = Rig()
    rig.scripts["x"] = answering(b'{"type":"message","usage":{"input_tokens":1,"output_tokens":1}}')
    sent = {"anthropic-beta": "b" * 8192, "anthropic-new-thing": "1", "anthropic-auth-token": "sk-leak"}
    assert (await rig.call(model="x/m", path=MESSAGES, headers=sent)).status == 200
    headers = dict(rig.exchange.requests[-1].headers)
    assert (headers[b"anthropic-beta"], headers[b"anthropic-new-thing"]) == (b"b" * 8192, b"1")
    assert b"sk-leak" not in b"".join(headers.values())
    refused = await rig.call(model="x/m", path=MESSAGES, headers={"anthropic-new-thing": "1" * 1025})
    assert refused.status == 400


async def test_what_the_operator_has_set_a_client_cannot() -> None:
    providers = json.loads(Rig().environment["GATEWAY_PROVIDERS"])
    providers["x"]["headers"] = {"anthropic-workspace-id": "ours"}
    rig = Rig(GATEWAY_PROVIDERS=json.dumps(providers))
    await rig.call(model="x/m", path=MESSAGES, headers={"anthropic-workspace-id": "theirs"})
    request = rig.exchange.requests[-1]
    values = [value for name, value in (*request.target.headers, *request.headers) if name == b"anthropic-workspace-id"]
    assert values == [b"ours"]
