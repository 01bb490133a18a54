"""The innermost step of the staircase: one attempt against one deployment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

from gateway_middleware.asgi import UntilDisconnect, Watchtower
from gateway_middleware.domain import Attempt
from gateway_middleware.errors import ProtocolFault, UpstreamError, UpstreamProtocolError, UpstreamTimeoutError
from gateway_middleware.outcomes import outcome_of
from gateway_middleware.scope import DEPLOYMENT, ON_CONTENT, RECORD, REQUEST
from gateway_middleware.upstream.heartbeat import Heartbeat

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from gateway_middleware.asgi import Receive, Scope, Send
    from gateway_middleware.domain import CallRecord, Clock, HeaderList, ModelRequest, Timeouts
    from gateway_middleware.upstream.exchange import Answer, Exchange
    from gateway_middleware.wire import Provider, ResponseReader

    ProviderErrorHook = Callable[[CallRecord, Attempt, UpstreamError], None]
    ErrorReader = Callable[..., UpstreamError]

_REQUEST_ID_HEADERS = (b"x-request-id", b"request-id", b"apim-request-id")
_BINARY = (b"audio/", b"application/octet-stream", b"image/", b"video/")
_OK = 200
_REDIRECT = 300
_HELD_BYTES = 256 * 1024
_HELD_EVENTS = 64
_STREAM_HEADERS: HeaderList = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class Dispatch:
    """ASGI endpoint that sends the request to its deployment and relays the answer.

    Takes the deployment from the scope, or the first of the route when no layer chose one, and calls ON_CONTENT, if a
    layer set it, at the first content of a stream. Nothing is sent to the client before the provider has answered well.
    While the route has another deployment, the lifecycle frames of a
    stream are held back until its first content, so that a failure until then is raised with the response untouched.
    Raises `UpstreamError` and `ClientDisconnectedError`; after the start of a stream too, for the outermost layer to
    end it in the dialect.
    The last bytes of an answer are left in `CallRecord.tail`.
    """

    def __init__(
        self,
        *,
        providers: Mapping[str, Provider],
        exchange: Exchange,
        clock: Clock,
        read_error: ErrorReader,
        on_provider_error: ProviderErrorHook | None = None,
        max_answer_bytes: int = 32 * 1024 * 1024,
    ) -> None:
        self._providers = providers
        self._exchange = exchange
        self._clock = clock
        self._read_error = read_error
        self._on_provider_error = on_provider_error
        self._max_answer_bytes = max_answer_bytes
        self._tower = Watchtower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, record = REQUEST.get(scope), RECORD.get(scope)
        deployment = DEPLOYMENT.peek(scope) or request.route.deployments[0]
        provider = self._providers[deployment.provider]
        attempt = Attempt(deployment=deployment, started=self._clock())
        record.attempts.append(attempt)
        timeouts = deployment.timeouts or provider.timeouts
        on_content = ON_CONTENT.peek(scope)
        try:
            with UntilDisconnect(receive, self._tower, stall=timeouts.write_stall) as watch:
                relay = _Relay(record, attempt, send, watch, on_content=on_content, heartbeat=timeouts.heartbeat)
                await self._attempt(request, provider, timeouts, relay)
        except BaseException as error:
            attempt.outcome = outcome_of(error)
            if isinstance(error, UpstreamError) and self._on_provider_error is not None:
                self._on_provider_error(record, attempt, error)
            raise
        else:
            attempt.outcome = outcome_of(attempt.failure)
        finally:
            attempt.ended = self._clock()

    async def _attempt(self, request: ModelRequest, provider: Provider, timeouts: Timeouts, relay: _Relay) -> None:
        attempt = relay.attempt
        upstream = provider.prepare(request, attempt.deployment)
        first_byte = timeouts.first_byte if request.is_stream else timeouts.answer
        answer = await self._exchange.open(upstream, timeouts, first_byte=first_byte)
        try:
            attempt.status = answer.status
            headers = dict(answer.headers)
            attempt.upstream_request_id = _request_id(headers)
            if not _OK <= answer.status < _REDIRECT:
                raise await self._failure(provider, answer)
            media = headers.get(b"content-type") or b"application/json"
            patience = first_byte - (self._clock() - attempt.started)
            await relay.answer(answer, request, provider, media, limit=self._max_answer_bytes, patience=patience)
        except BaseException:
            answer.close()
            raise
        answer.conclude()

    async def _failure(self, provider: Provider, answer: Answer) -> UpstreamError:
        body = await answer.read(self._max_answer_bytes)
        return self._read_error(answer.status, answer.headers, body, provider=provider.name, secrets=provider.secrets)


def _request_id(headers: dict[bytes, bytes]) -> str | None:
    for name in _REQUEST_ID_HEADERS:
        value = headers.get(name)
        if value is not None:
            return value[:128].decode("latin-1")
    return None


class _Relay:
    """Carries one good answer from the provider to the client, and what was learnt of it into the record."""

    __slots__ = ("_heart", "_heartbeat", "_held", "_is_started", "_on_content", "_record", "_send", "_watch", "attempt")

    def __init__(
        self,
        record: CallRecord,
        attempt: Attempt,
        send: Send,
        watch: UntilDisconnect,
        *,
        on_content: Callable[[], None] | None,
        heartbeat: float,
    ) -> None:
        self._heartbeat = heartbeat
        self._heart: Heartbeat | None = None
        self.attempt = attempt
        self._record = record
        self._send = send
        self._watch = watch
        self._on_content = on_content
        self._is_started = False
        self._held = b""

    async def answer(
        self, answer: Answer, request: ModelRequest, provider: Provider, media: bytes, *, limit: int, patience: float
    ) -> None:
        """Relay it. `patience`: seconds from now within which a stream must show content."""
        is_event_stream = media.startswith(b"text/event-stream")
        reader = provider.reader(request, is_event_stream=is_event_stream)
        can_move = len(request.route.deployments) > 1
        try:
            if is_event_stream:
                await self._events(answer, reader, patience, can_move=can_move)
            elif media.startswith(_BINARY):
                await self._binary(answer, reader, media)
            else:
                await self._whole(answer, reader, media, limit, can_move=can_move)
        finally:
            if self._heart is not None:
                self._heart.stop()
            self._learn(reader)

    def _learn(self, reader: ResponseReader) -> None:
        self._record.usage = self.attempt.usage = reader.usage
        self._record.response_id = reader.response_id
        self._record.response_model = reader.response_model

    async def _whole(self, answer: Answer, reader: ResponseReader, media: bytes, limit: int, *, can_move: bool) -> None:
        body = await answer.read(limit)
        relayed = reader.feed(body) + reader.finish()
        if not reader.is_complete:
            raise UpstreamProtocolError("The provider's answer is not complete JSON.")
        self._consider_failure(reader, can_move=can_move)
        self._record.tail = relayed
        headers = [(b"content-type", media), (b"content-length", b"%d" % len(relayed))]
        await self._send({"type": "http.response.start", "status": self.attempt.status, "headers": headers})

    def _consider_failure(self, reader: ResponseReader, *, can_move: bool) -> None:
        """An answer that says itself that it failed is for another deployment to better, else for the client."""
        if reader.failure is not None:
            if can_move and not self._is_started:
                raise reader.failure
            self.attempt.failure = reader.failure

    async def _binary(self, answer: Answer, reader: ResponseReader, media: bytes) -> None:
        while chunk := await answer.chunk():
            relayed = reader.feed(chunk)
            if not self._is_started:
                await self._start([(b"content-type", media)])
            await self._pass_on(relayed)
        if not self._is_started:
            raise UpstreamProtocolError("The provider's answer is empty.")
        self._record.tail = reader.finish()

    async def _events(self, answer: Answer, reader: ResponseReader, patience: float, *, can_move: bool) -> None:
        try:
            async with asyncio.timeout(patience):
                await self._lead_in(answer, reader, can_move=can_move)
        except TimeoutError:
            message = "The provider showed no content in time (first_byte)."
            raise UpstreamTimeoutError(message, phase="first_byte") from None
        self._consider_failure(reader, can_move=can_move)
        if self._on_content is not None and reader.failure is None:
            self._on_content()
        if not self._is_started:
            await self._start_stream()
        relayed, self._held = self._held, b""
        while not reader.is_complete:
            if relayed:
                await self._pass_on(relayed)
            chunk = await answer.chunk()
            relayed = reader.feed(chunk) if chunk else reader.finish()
            if reader.error is not None or not (chunk or reader.is_complete):
                await self._break_off(reader, relayed)
        if reader.failure is not None:
            self.attempt.failure = reader.failure
        self._record.tail = relayed

    async def _lead_in(self, answer: Answer, reader: ResponseReader, *, can_move: bool) -> None:
        """Read until the first content. What has not been passed on by then is held."""
        while not (reader.has_content or reader.is_complete):
            chunk = await answer.chunk()
            relayed = reader.feed(chunk) if chunk else reader.finish()
            if reader.error is not None or not (chunk or reader.is_complete):
                await self._break_off(reader, relayed)
            self._held += relayed
            if self._held and not _is_held(reader, self._held, can_move=can_move):
                await self._flush()

    async def _flush(self) -> None:
        if not self._is_started:
            await self._start_stream()
        held, self._held = self._held, b""
        await self._pass_on(held)

    async def _break_off(self, reader: ResponseReader, relayed: bytes) -> NoReturn:
        """The stream ends in an error. What came before it goes to the client, unless nothing of it is content."""
        self._held += relayed
        if self._held and (self._is_started or reader.has_content):
            await self._flush()
        raise reader.error or UpstreamProtocolError(
            "The provider's stream ended before it was complete.", fault=ProtocolFault.TRUNCATED
        )

    async def _start_stream(self) -> None:
        await self._start(_STREAM_HEADERS)
        self._heart = Heartbeat(self._send, self._watch, self._heartbeat, self._record.dialect)

    async def _start(self, headers: HeaderList) -> None:
        self._is_started = True
        await self._send({"type": "http.response.start", "status": self.attempt.status, "headers": list(headers)})

    def _pass_on(self, body: bytes) -> Awaitable[None]:
        return self._watch.send(self._send, {"type": "http.response.body", "body": body, "more_body": True})


def _is_held(reader: ResponseReader, held: bytes, *, can_move: bool) -> bool:
    """Whether lifecycle frames wait for the content: while there is another deployment and they are not too many."""
    if reader.has_content:
        return True
    return can_move and len(held) <= _HELD_BYTES and held.count(b"\n\n") <= _HELD_EVENTS
