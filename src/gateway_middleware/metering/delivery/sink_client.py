"""The HTTP side of delivery: one batch, one answer. Neither address nor credential appears in a log or an error."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from typing import Protocol
from urllib.parse import SplitResult, quote, unquote, urlsplit

import msgspec

from gateway_middleware.core.domain import Clock, HeaderList, Timeouts
from gateway_middleware.core.provider_api import Origin, UpstreamRequest, UpstreamTarget
from gateway_middleware.core.secret import redact
from gateway_middleware.metering.delivery.cloudevents import CONTENT_TYPE
from gateway_middleware.metering.delivery.responses import MAX_BODY, SinkResponse, classify, retry_after

_MAX_EXCERPT = 200
_PATH = "/:@!$&'()*+,;=-._~%?[]"


class SinkReply(msgspec.Struct, frozen=True):
    """What came of a batch. `reason` is for logs, `excerpt` how the answer begins; `retry_after` is in seconds."""

    response: SinkResponse
    reason: str
    excerpt: str = ""
    retry_after: float = 0.0


class SinkAnswer(Protocol):
    """What comes back, once its head is there."""

    status: int
    headers: HeaderList
    """Names in lower case."""

    async def chunk(self) -> bytes:
        """The next bytes of the body, empty at its end."""
        ...

    def close(self) -> None:
        """Nobody reads on."""
        ...


class SinkExchange(Protocol):
    """How requests are sent: the engine, or any httpx transport behind `HttpxExchange`."""

    async def open(self, request: UpstreamRequest, timeouts: Timeouts, *, first_byte: float) -> SinkAnswer:
        """Send a request and wait for the head of its answer."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...


class SinkClient:
    """Posts batches to `usage-metering` through `exchange`, which it owns.

    `wall` is seconds since the epoch, `deadline` the seconds that one batch may take. Raises ValueError for a URL that
    is no HTTP address.
    """

    def __init__(
        self,
        exchange: SinkExchange,
        *,
        url: str,
        token: str | None = None,
        wall: Clock = time.time,
        deadline: float = 10.0,
    ) -> None:
        self._exchange = exchange
        headers = [(b"content-type", CONTENT_TYPE.encode()), (b"accept", b"*/*"), (b"accept-encoding", b"identity")]
        if token:
            headers.append((b"authorization", f"Bearer {token}".encode()))
        self._target = _target_of(url, tuple(headers))
        self._secrets = tuple(text for text in (token, url) if text)
        self._wall = wall
        self._deadline = deadline
        self._timeouts = Timeouts(connect=deadline, idle=deadline, total=deadline)

    async def post(self, body: bytes) -> SinkReply:
        """Send a batch. Raises nothing but `CancelledError`."""
        try:
            async with asyncio.timeout(self._deadline):
                return await self._post(body)
        except TimeoutError:
            return SinkReply(SinkResponse.RETRY, "no answer in time")
        except Exception as error:  # noqa: BLE001  # whatever fails here, the events are kept and sent again
            return SinkReply(SinkResponse.RETRY, type(error).__name__)

    async def aclose(self) -> None:
        """Close the exchange."""
        await self._exchange.aclose()

    async def _post(self, body: bytes) -> SinkReply:
        request = UpstreamRequest(target=self._target, body=body)
        answer = await self._exchange.open(request, self._timeouts, first_byte=self._deadline)
        try:
            beginning = await _beginning(answer)
        finally:
            answer.close()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers}
        seconds = retry_after(headers, wall=self._wall())
        return SinkReply(classify(answer.status, beginning), f"HTTP {answer.status}", self._excerpt(beginning), seconds)

    def _excerpt(self, beginning: bytes) -> str:
        text = redact(beginning.decode(errors="replace"), self._secrets)
        return "".join(c if c.isprintable() else " " for c in text[:_MAX_EXCERPT])


def _target_of(url: str, headers: tuple[tuple[bytes, bytes], ...]) -> UpstreamTarget:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("the address of usage-metering is no HTTP URL")
    is_tls = parts.scheme == "https"
    host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
    origin = Origin(host=host, port=parts.port or (443 if is_tls else 80), is_tls=is_tls)
    path = quote(parts.path or "/", safe=_PATH) + (f"?{quote(parts.query, safe=_PATH)}" if parts.query else "")
    return UpstreamTarget.build(origin, path, (*headers, *_credentials(parts)))


def _credentials(parts: SplitResult) -> list[tuple[bytes, bytes]]:
    """Name and password in a URL, as basic authentication."""
    if parts.username is None:
        return []
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return [(b"authorization", b"Basic " + b64encode(pair.encode()))]


async def _beginning(answer: SinkAnswer) -> bytes:
    beginning = bytearray()
    while len(beginning) < MAX_BODY and (chunk := await answer.chunk()):
        beginning += chunk
    return bytes(beginning[:MAX_BODY])
