"""The HTTP side of delivery: one batch, one answer. Neither address nor credential appears in a log or an error."""

from __future__ import annotations

import asyncio
import time

import httpx
import msgspec

from gateway_middleware.core.domain import Clock
from gateway_middleware.core.secret import redact
from gateway_middleware.metering.delivery.cloudevents import CONTENT_TYPE
from gateway_middleware.metering.delivery.responses import MAX_BODY, SinkResponse, classify, retry_after

_MAX_EXCERPT = 200


class SinkReply(msgspec.Struct, frozen=True):
    """What came of a batch. `reason` is for logs, `excerpt` how the answer begins; `retry_after` is in seconds."""

    response: SinkResponse
    reason: str
    excerpt: str = ""
    retry_after: float = 0.0


class SinkClient:
    """Posts batches to `usage-metering`. Owns `transport`, any of httpx's asynchronous ones.

    It is used without an `httpx.AsyncClient`, which ties each answer to its request in a reference cycle, body and all.
    `wall` is seconds since the epoch, `deadline` the seconds that one batch may take.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        *,
        url: str,
        token: str | None = None,
        wall: Clock = time.time,
        deadline: float = 10.0,
    ) -> None:
        self._transport = transport
        self._url = httpx.URL(url)
        self._headers = {"content-type": CONTENT_TYPE, "accept": "*/*", "accept-encoding": "identity"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._secrets = tuple(text for text in (token, url, str(self._url)) if text)
        self._wall = wall
        self._deadline = deadline
        self._extensions = {"timeout": httpx.Timeout(deadline).as_dict()}

    async def post(self, body: bytes) -> SinkReply:
        """Send a batch. Raises nothing but `CancelledError`."""
        try:
            async with asyncio.timeout(self._deadline):
                return await self._exchange(body)
        except TimeoutError:
            return SinkReply(SinkResponse.RETRY, "no answer in time")
        except Exception as error:  # noqa: BLE001  # whatever fails here, the events are kept and sent again
            return SinkReply(SinkResponse.RETRY, type(error).__name__)

    async def aclose(self) -> None:
        """Close the transport."""
        await self._transport.aclose()

    async def _exchange(self, body: bytes) -> SinkReply:
        request = httpx.Request("POST", self._url, headers=self._headers, content=body, extensions=self._extensions)
        answer = await self._transport.handle_async_request(request)
        try:
            beginning = await _beginning(answer)
        finally:
            await answer.aclose()
        status = answer.status_code
        seconds = retry_after(answer.headers, wall=self._wall())
        return SinkReply(classify(status, beginning), f"HTTP {status}", self._excerpt(beginning), seconds)

    def _excerpt(self, beginning: bytes) -> str:
        text = redact(beginning.decode(errors="replace"), self._secrets)
        return "".join(c if c.isprintable() else " " for c in text[:_MAX_EXCERPT])


async def _beginning(answer: httpx.Response) -> bytes:
    if answer.is_stream_consumed:
        return answer.content[:MAX_BODY]
    beginning = bytearray()
    async for chunk in answer.aiter_raw():
        beginning += chunk
        if len(beginning) >= MAX_BODY:
            break
    return bytes(beginning[:MAX_BODY])
