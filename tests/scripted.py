"""An `Exchange` that answers from a script: fakes the network border of dispatch, nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from gateway_middleware.core.domain import HeaderList, Timeouts
from gateway_middleware.core.errors import UpstreamError, UpstreamProtocolError
from gateway_middleware.core.provider_api import UpstreamRequest


class ScriptedAnswer:
    """Hands out chunks; ends cleanly, or with `failure`."""

    def __init__(
        self, status: int, headers: HeaderList, chunks: Iterable[bytes], *, failure: UpstreamError | None = None
    ) -> None:
        self.status = status
        self.headers = headers
        self._chunks = iter(chunks)
        self._failure = failure
        self.is_closed = False

    async def chunk(self) -> bytes:
        for chunk in self._chunks:
            return chunk
        if self._failure is not None:
            raise self._failure
        return b""

    async def read(self, limit: int) -> bytes:
        body = b""
        while chunk := await self.chunk():
            body += chunk
        if len(body) > limit:
            raise UpstreamProtocolError("too long")
        return body

    def close(self) -> None:
        self.is_closed = True

    def conclude(self) -> None:
        self.is_closed = True


class ScriptedExchange:
    """Answers each request with what `answer` makes of it, and keeps the requests."""

    def __init__(self, answer: Callable[[UpstreamRequest], ScriptedAnswer | UpstreamError]) -> None:
        self._answer = answer
        self.requests: list[UpstreamRequest] = []
        self.answers: list[ScriptedAnswer] = []

    async def open(self, request: UpstreamRequest, timeouts: Timeouts, *, first_byte: float) -> ScriptedAnswer:
        await asyncio.sleep(0)
        self.requests.append(request)
        answer = self._answer(request)
        if isinstance(answer, UpstreamError):
            raise answer
        self.answers.append(answer)
        return answer

    async def aclose(self) -> None:
        return None


def pieces(body: bytes, size: int) -> Sequence[bytes]:
    """The body in pieces of `size` bytes."""
    return [body[i : i + size] for i in range(0, len(body), size)]
