"""One good answer on its way from the provider to the client."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import msgspec

from gateway_middleware.core.errors import ProtocolFault, UpstreamProtocolError, UpstreamTimeoutError
from gateway_middleware.core.stepping import in_time
from gateway_middleware.upstream.answer import EngineAnswer
from gateway_middleware.upstream.decoding import PeekedAnswer
from gateway_middleware.upstream.heartbeat import Heartbeat
from gateway_middleware.upstream.progress import Progress
from gateway_middleware.upstream.push import End, Push
from gateway_middleware.upstream.relayed_output import OutputTally

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway_middleware.core.asgi import Send, UntilDisconnect
    from gateway_middleware.core.domain import Clock, HeaderList, ModelRequest, Surface, Timeouts
    from gateway_middleware.core.errors import UpstreamError
    from gateway_middleware.core.provider_api import Provider, ResponseReader
    from gateway_middleware.core.record import Attempt, CallRecord
    from gateway_middleware.upstream.drain import UsageDrain
    from gateway_middleware.upstream.exchange import Answer
    from gateway_middleware.upstream.relayed_output import OutputCounterFactory

_BINARY = (b"audio/", b"application/octet-stream", b"image/", b"video/")
_HELD_BYTES = 256 * 1024
_HELD_EVENTS = 64
_STREAM_HEADERS: HeaderList = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class Patience(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How long a stream may take until its first content, and how long it may be silent until then, in seconds.

    `gap` is how long it may bring no content after that.
    """

    content: float
    silence: float
    gap: float


class Relay:
    """Carries one good answer from the provider to the client, and what was learnt of it into the record."""

    __slots__ = ("_clock", "_count_output", "_heart", "_heartbeat", "_held", "_is_started", "_on_content", "_reader",
                 "_record", "_relayed", "_send", "_surface", "_watch", "attempt")  # fmt: skip

    def __init__(
        self,
        record: CallRecord,
        attempt: Attempt,
        send: Send,
        watch: UntilDisconnect,
        *,
        on_content: Callable[[], None] | None,
        heartbeat: float,
        count_output: OutputCounterFactory | None,
        clock: Clock,
    ) -> None:
        self._heartbeat = heartbeat
        self._clock = clock
        self._heart: Heartbeat | None = None
        self.attempt = attempt
        self._record = record
        self._send = send
        self._watch = watch
        self._on_content = on_content
        self._is_started = False
        self._held = b""
        self._reader: ResponseReader | None = None
        self._count_output = count_output
        self._relayed: OutputTally | None = None

    async def answer(
        self, answer: Answer, request: ModelRequest, provider: Provider, media: bytes, *, limit: int, timeouts: Timeouts
    ) -> None:
        """Relay it. `limit` bounds a whole answer in bytes."""
        is_event_stream = provider.is_stream(answer.headers)
        if request.is_stream and not is_event_stream:
            answer = peeked = PeekedAnswer(answer)
            is_event_stream = await peeked.begins_like_events()
        self._surface: Surface = request.surface
        translation = self.attempt.translation
        if translation is None:
            reader = provider.reader(request, is_event_stream=is_event_stream)
        else:
            reader = translation.reader(is_event_stream=is_event_stream)
        self._reader = reader
        can_move = request.route.has_alternatives
        try:
            if is_event_stream:
                await self._events(answer, reader, self._patience(request, timeouts), can_move=can_move)
            elif media.startswith(_BINARY):
                await self._binary(answer, reader, media)
            else:
                await self._whole(answer, reader, media, limit, can_move=can_move)
        except BaseException:
            self._learn(reader)
            self.attempt.event_ending = reader.ending()
            raise
        finally:
            if self._heart is not None:
                self._heart.stop()

    def _patience(self, request: ModelRequest, timeouts: Timeouts) -> Patience:
        return Patience(
            content=timeouts.first_content - (self._clock() - self.attempt.started),
            silence=timeouts.first_byte if request.is_stream else timeouts.answer,
            gap=timeouts.content_idle,
        )

    def reads_on(self, answer: Answer, drain: UsageDrain | None) -> bool:
        """Whether the rest of a stream is read for its usage, though its client has left."""
        reader = self._reader
        if drain is None or reader is None or not (self._is_started and self._watch.has_left):
            return False
        return drain.adopt(answer, reader, self.attempt)

    def _learn(self, reader: ResponseReader) -> None:
        attempt = self.attempt
        attempt.usage, attempt.raw_usage, attempt.service_tier = reader.usage, reader.raw_usage, reader.service_tier
        attempt.response_id, attempt.response_model = reader.response_id, reader.response_model
        attempt.item_ids = reader.item_ids
        attempt.is_complete, attempt.is_usage_final = reader.is_complete, reader.is_usage_final
        if self._relayed is not None and (not reader.is_complete or self._is_uncounted(reader)):
            attempt.delivered_tokens = self._relayed.tokens()

    def _is_uncounted(self, reader: ResponseReader) -> bool:
        """Whether the provider has not told how much output there was."""
        usage = reader.usage
        return usage is None or (usage.output_tokens is None and self._surface.writes_text)

    @property
    def _tally(self) -> OutputTally:
        """What is relayed, made when there is something to count: of most whole answers the provider tells it."""
        if self._relayed is None:
            self._relayed = OutputTally(self._count_output, self._surface, self.attempt.deployment.model)
        return self._relayed

    async def _whole(self, answer: Answer, reader: ResponseReader, media: bytes, limit: int, *, can_move: bool) -> None:
        body = await answer.read(limit)
        relayed = reader.feed(body) + reader.finish()
        if not reader.is_complete:
            raise UpstreamProtocolError("The provider's answer is not complete JSON.")
        # A document that is only an error is no answer, whether or not somebody else could be asked.
        if reader.failure is not None:
            self._consider_failure(reader.failure, can_move=can_move or reader.response_id is None)
        if self._is_uncounted(reader):
            self._tally.add_whole(relayed)
        self._learn(reader)
        await self._start([(b"content-type", media), (b"content-length", str(len(relayed)).encode())])
        await self._end(relayed)

    def _consider_failure(self, failure: UpstreamError, *, can_move: bool) -> None:
        """An answer that says itself that it failed is for another deployment to better, else for the client."""
        if can_move and not self._is_started:
            raise failure
        self.attempt.failure = failure

    async def _binary(self, answer: Answer, reader: ResponseReader, media: bytes) -> None:
        while chunk := await answer.chunk():
            relayed = reader.feed(chunk)
            if not self._is_started:
                await self._start([(b"content-type", media)])
            await self._pass_on(relayed)
        if not self._is_started:
            raise UpstreamProtocolError("The provider's answer is empty.")
        rest = reader.finish()
        self._learn(reader)
        await self._end(rest)

    async def _events(self, answer: Answer, reader: ResponseReader, patience: Patience, *, can_move: bool) -> None:
        await self._lead_in(answer, reader, patience, can_move=can_move)
        if reader.failure is not None:
            self._consider_failure(reader.failure, can_move=can_move)
        self.attempt.first_content = self._clock()
        if self._on_content is not None and reader.failure is None:
            self._on_content()
        if not self._is_started:
            await self._start_stream()
        relayed, self._held = self._held, b""
        progress = Progress(patience.gap, self._clock)
        while not reader.is_complete:
            if relayed:
                await self._pass_on(relayed)
            if reader.rest:
                await self._pass_on_again(await self._all_but_last(b"", reader))
            if isinstance(answer, EngineAnswer):
                relayed = await self._pushed(answer, reader, progress)
                if reader.error is not None:
                    await self._break_off(reader, relayed)
                if relayed or reader.rest or reader.is_complete:
                    continue
            chunk = await answer.chunk()
            relayed = reader.feed(chunk) if chunk else reader.finish()
            if reader.error is not None or not (chunk or reader.is_complete):
                await self._break_off(reader, relayed)
            progress.check(chunk)
        await self._end_stream(reader, relayed)

    async def _end_stream(self, reader: ResponseReader, relayed: bytes) -> None:
        if reader.failure is not None:
            self.attempt.failure = reader.failure
        if relayed and self._is_uncounted(reader):
            self._tally.add(relayed)
        self._learn(reader)
        if self._heart is not None:
            self._heart.stop()
        if reader.rest:
            relayed = await self._all_but_last(relayed, reader)
        await self._end(relayed)

    async def _all_but_last(self, relayed: bytes, reader: ResponseReader) -> bytes:
        """Pass on what the reader has in pieces, which repeats what was counted already; returns the last piece."""
        pieces, reader.rest = reader.rest, ()
        for piece in pieces:
            if relayed:
                await self._pass_on_again(relayed)
            relayed = piece
        return relayed

    def _pass_on_again(self, body: bytes) -> Awaitable[None]:
        if self._heart is not None:
            self._heart.passed = body
        return self._watch.send(self._send, {"type": "http.response.body", "body": body, "more_body": True})

    async def _pushed(self, answer: EngineAnswer, reader: ResponseReader, progress: Progress) -> bytes:
        """Relay without a change of tasks while the client takes what it gets; what is left to relay."""
        rest = b""

        def pass_on(chunk: bytes) -> Awaitable[None] | End | None:
            nonlocal rest
            relayed = reader.feed(chunk)
            progress.check(chunk)
            if reader.is_complete or reader.error is not None or reader.rest:
                rest = relayed
                return End.OF_STREAM
            return self._pass_on(relayed) if relayed else None

        push = Push(pass_on)
        try:
            await answer.each(push)
        except BaseException:
            push.drop()
            raise
        await push.finish()
        return rest

    async def _lead_in(self, answer: Answer, reader: ResponseReader, patience: Patience, *, can_move: bool) -> None:
        """Read until the first content. What has not been passed on by then is held.

        The time that a client takes does not count.
        """
        left = patience.content
        while not (reader.has_content or reader.is_complete):
            began = self._clock()
            chunk = await _in_time(answer, min(left, patience.silence))
            left -= self._clock() - began
            relayed = reader.feed(chunk) if chunk else reader.finish()
            if reader.error is not None or not (chunk or reader.is_complete):
                await self._break_off(reader, relayed)
            self._held += b"".join((relayed, *reader.rest))
            if self._held and not _is_held(reader, self._held, can_move=can_move and not self._is_started):
                await self._flush()

    async def _flush(self) -> None:
        if not self._is_started:
            await self._start_stream()
        held, self._held = self._held, b""
        await self._pass_on(held)

    async def _break_off(self, reader: ResponseReader, relayed: bytes) -> NoReturn:
        """The stream ends in an error. What came before it goes to the client, unless nothing of it is content."""
        self._held += b"".join((relayed, *reader.rest))
        if self._held and (self._is_started or reader.has_content):
            await self._flush()
        raise reader.error or UpstreamProtocolError(
            "The provider's stream ended before it was complete.", fault=ProtocolFault.TRUNCATED
        )

    async def _start_stream(self) -> None:
        await self._start(list(_STREAM_HEADERS))
        self._heart = Heartbeat(self._send, self._watch, self._heartbeat, self._record.dialect)

    def _start(self, headers: HeaderList) -> Awaitable[None]:
        self._is_started = True
        return self._send({"type": "http.response.start", "status": self.attempt.status, "headers": headers})

    def _end(self, body: bytes) -> Awaitable[None]:
        """The last message. What the answer has told is on record by now, for layers that look when they see it."""
        return self._watch.send(self._send, {"type": "http.response.body", "body": body, "more_body": False})

    def _pass_on(self, body: bytes) -> Awaitable[None]:
        (self._relayed or self._tally).add(body)
        if self._heart is not None:
            self._heart.passed = body
        return self._watch.send(self._send, {"type": "http.response.body", "body": body, "more_body": True})


def _is_held(reader: ResponseReader, held: bytes, *, can_move: bool) -> bool:
    """Whether lifecycle frames wait for the content: while there is another deployment and they are not too many."""
    if reader.has_content:
        return True
    return can_move and len(held) <= _HELD_BYTES and held.count(b"\n\n") + held.count(b"\r\n\r\n") <= _HELD_EVENTS


async def _in_time(answer: Answer, seconds: float) -> bytes:
    try:
        return await in_time(answer.chunk(), seconds)
    except TimeoutError:
        message = "The provider showed no content in time (first_byte)."
        raise UpstreamTimeoutError(message, phase="first_byte") from None
