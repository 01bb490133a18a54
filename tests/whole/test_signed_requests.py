"""Claude on Amazon Bedrock by signed requests: what comes in at the other end bears the signature of what came in."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from gateway_middleware.simulator import Simulator
from messages_steps import messages_steps
from rawserver import Peer, plain, raw_server
from running import KEY, LogLines, gateway_for

pytestmark = pytest.mark.anyio

SECRET = "secret-of-aws-0123456789"
MESSAGE = (
    b'{"id":"msg_1","type":"message","model":"c","role":"assistant","content":[{"type":"text","text":"hi"}],'
    b'"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}'
)
REFUSED = b'{"message":"The request signature we calculated does not match the signature you provided."}'
_SCOPE = r"Credential=([^/]+)/(\d+)/([^/]+)/([^/]+)/aws4_request"
_AUTHORIZATION = re.compile(rf"AWS4-HMAC-SHA256 {_SCOPE}, SignedHeaders=([^,]+), Signature=(\w+)")


class Bedrock:
    """Takes requests whose signature is right for exactly these bytes, by AWS's description and not by our code.

    `behind` answers them, if given: it gets their target and body, and returns an answer's bytes.
    """

    def __init__(self, behind: Callable[[str, bytes], Awaitable[bytes]] | None = None) -> None:
        self.tokens: list[str | None] = []
        self._behind = behind

    async def __call__(self, peer: Peer) -> None:
        while True:
            head, _, body = (await peer.request()).partition(b"\r\n\r\n")
            if not self._verify(head.decode(), body):
                await peer.send(plain(REFUSED, b"403 Forbidden"))
            elif self._behind is None:
                await peer.send(plain(MESSAGE))
            else:
                await peer.send(await self._behind(head.split(b" ")[1].decode(), body))

    def _verify(self, head: str, body: bytes) -> bool:
        line, *rest = head.split("\r\n")
        headers = {name.lower(): value for name, value in (pair.split(": ", 1) for pair in rest)}
        self.tokens.append(headers.get("x-amz-security-token"))
        found = _AUTHORIZATION.fullmatch(headers["authorization"])
        assert found is not None
        key_id, day, region, service, names, signature = found.groups()
        assert (key_id, region, service) == ("AKIDEXAMPLE", "eu-central-1", "bedrock")
        method, target, _ = line.split(" ")
        written = "".join(f"{name}:{headers[name]}\n" for name in names.split(";"))
        digest = hashlib.sha256(body).hexdigest()
        canonical = f"{method}\n{target}\n\n{written}\n{names}\n{digest}"
        scope = f"{day}/{region}/{service}/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{headers['x-amz-date']}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{SECRET}".encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), "sha256").digest()
        return hmac.new(key, text.encode(), "sha256").hexdigest() == signature


def provider(url: str, *, surfaces: Sequence[str] = (), **aws: str) -> str:
    keys = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": SECRET, "region": "eu-central-1", **aws}
    entry = {"kind": "anthropic", "base_url": f"{url}/anthropic", "auth": "sigv4", "aws": keys}
    return json.dumps({"bedrock": entry | ({"surfaces": surfaces} if surfaces else {})})


async def claude(url: str, model: str = "bedrock/anthropic.claude-opus-4-7") -> Any:
    async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        return await client.messages.create(model=model, max_tokens=9, messages=[{"role": "user", "content": "schön"}])


async def test_official_clients_are_signed_for(tmp_path: Path) -> None:
    bedrock, log = Bedrock(), LogLines()
    token = tmp_path / "token"
    token.write_text("a-session-token-0123456789")
    async with raw_server(bedrock) as upstream:
        providers = provider(upstream.url, session_token=f"file:{token}")
        async with gateway_for(upstream.url, {"write_log": log}, GATEWAY_PROVIDERS=providers) as url:
            assert (await claude(url)).content[0].text == "hi"
            async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
                answer = await client.chat.completions.create(
                    model="bedrock/anthropic.claude-opus-4-7", messages=[{"role": "user", "content": "hello"}]
                )
            assert answer.choices[0].message.content == "hi"
    assert bedrock.tokens == ["a-session-token-0123456789"] * 2
    assert [secret for secret in (SECRET, "a-session-token") if secret in log.raw.decode()] == []


async def test_the_look_alike_of_bedrock_serves_signed_requests_as_any() -> None:
    async with Simulator(keys=["bearer-0123456789"]).serve() as server, httpx.AsyncClient(trust_env=False) as client:

        async def look_alike(target: str, body: bytes) -> bytes:
            headers = {"authorization": "Bearer bearer-0123456789", "content-type": "application/json"}
            headers["anthropic-version"] = "2023-06-01"
            answer = await client.post(f"{server.url}/as/bedrock{target}", content=body, headers=headers)
            head = f"HTTP/1.1 {answer.status_code} X\r\ncontent-type: {answer.headers['content-type']}\r\n"
            return f"{head}content-length: {len(answer.content)}\r\n\r\n".encode() + answer.content

        async with (
            raw_server(Bedrock(look_alike)) as upstream,
            gateway_for(upstream.url, GATEWAY_PROVIDERS=provider(upstream.url, surfaces=["messages"])) as url,
            anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as claude_client,
        ):
            await messages_steps(claude_client, "bedrock/anthropic.claude-opus-4-7", server.simulator)


async def test_a_signature_that_is_refused_is_the_gateways_affair() -> None:
    async with raw_server(Bedrock()) as upstream:
        providers = provider(upstream.url, secret_access_key="another-secret-0123456789")
        async with gateway_for(upstream.url, GATEWAY_PROVIDERS=providers) as url:
            with pytest.raises(anthropic.APIStatusError) as raised:
                await claude(url)
            assert raised.value.status_code == 502
