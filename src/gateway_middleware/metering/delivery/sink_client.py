"""The HTTP side of delivery: one batch, one answer. Neither address nor credential appears in a log or an error."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar

import httpx
import msgspec

from gateway_middleware.core.domain import Clock
from gateway_middleware.core.secret import redact
from gateway_middleware.metering.delivery.cloudevents import CONTENT_TYPE
from gateway_middleware.metering.delivery.responses import LONGEST_BODY, Verdict, judge, retry_after

_EXCERPT = 200
_TALKERS = ("httpx", "httpcore.connection")
"""Loggers that write addresses, httpx the whole URL of each request: silent about the sending of a batch."""

_is_posting = ContextVar("gateway_middleware_is_posting", default=False)


class Reply(msgspec.Struct, frozen=True):
    """What came of a batch. `reason` is for logs, `said` the beginning of the answer; `told` is in seconds."""

    verdict: Verdict
    reason: str
    said: str = ""
    told: float = 0.0


class Consumer:
    """`usage-metering`. `wall` is seconds since the epoch, `deadline` the seconds that one batch may take."""

    def __init__(
        self, client: httpx.AsyncClient, *, url: str, token: str | None, wall: Clock, deadline: float = 10.0
    ) -> None:
        self._client = client
        self._url = httpx.URL(url)
        self._headers = {"content-type": CONTENT_TYPE, "accept-encoding": "identity"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._unspoken = tuple(text for text in (token, url, str(self._url)) if text)
        self._wall = wall
        self._deadline = deadline
        for name in _TALKERS:
            logging.getLogger(name).addFilter(_is_of_others)

    async def post(self, body: bytes) -> Reply:
        """Send a batch. Raises nothing but `CancelledError`."""
        was = _is_posting.set(True)
        try:
            async with asyncio.timeout(self._deadline):
                return await self._exchange(body)
        except TimeoutError:
            return Reply(Verdict.LATER, "no answer in time")
        except Exception as error:  # noqa: BLE001  # whatever fails here, the events are kept and sent again
            return Reply(Verdict.LATER, type(error).__name__)
        finally:
            _is_posting.reset(was)

    async def _exchange(self, body: bytes) -> Reply:
        async with self._client.stream(
            "POST", self._url, content=body, headers=self._headers, follow_redirects=False, timeout=self._deadline
        ) as answer:
            said = await _beginning(answer)
        status = answer.status_code
        told = retry_after(answer.headers, wall=self._wall())
        return Reply(judge(status, said), f"HTTP {status}", self._excerpt(said), told)

    def _excerpt(self, said: bytes) -> str:
        text = redact(said.decode(errors="replace"), self._unspoken)
        return "".join(c if c.isprintable() else " " for c in text[:_EXCERPT])


async def _beginning(answer: httpx.Response) -> bytes:
    if answer.is_stream_consumed:
        return answer.content[:LONGEST_BODY]
    said = bytearray()
    async for chunk in answer.aiter_raw():
        said += chunk
        if len(said) >= LONGEST_BODY:
            break
    return bytes(said[:LONGEST_BODY])


def _is_of_others(_: logging.LogRecord) -> bool:
    return not _is_posting.get()
