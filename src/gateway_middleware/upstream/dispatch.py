"""The endpoint of model calls: one attempt against one deployment."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.asgi import UntilDisconnect, Watchtower
from gateway_middleware.core.domain import Payer
from gateway_middleware.core.errors import UpstreamError, UpstreamStatusError
from gateway_middleware.core.outcomes import outcome_of
from gateway_middleware.core.record import Attempt
from gateway_middleware.core.scope import DEPLOYMENT, METER, ON_CONTENT, RECORD, REQUEST
from gateway_middleware.upstream.content_type import content_type_of
from gateway_middleware.upstream.decoding import decoded
from gateway_middleware.upstream.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from gateway_middleware.core.asgi import Receive, Scope, Send
    from gateway_middleware.core.domain import Clock, Deployment, ModelRequest, Timeouts
    from gateway_middleware.core.omissions import Omission
    from gateway_middleware.core.outbox import Entry
    from gateway_middleware.core.provider_api import Provider, UpstreamRequest
    from gateway_middleware.core.record import CallRecord, Meter
    from gateway_middleware.upstream.credential import UpstreamCredential
    from gateway_middleware.upstream.drain import UsageDrain
    from gateway_middleware.upstream.exchange import Answer, Exchange, RecordedExchange
    from gateway_middleware.upstream.relayed_output import OutputCounterFactory

    OnProviderError = Callable[[CallRecord, Attempt, UpstreamError], None]
    ErrorReader = Callable[..., UpstreamError]

_OK = 200
_NO_CREDENTIALS: Mapping[str, UpstreamCredential] = MappingProxyType({})
_REDIRECT = 300


class Dispatch:
    """ASGI endpoint that sends the request to its deployment and relays the answer.

    Takes the deployment from the scope, or the first of the route when no layer chose one, and calls ON_CONTENT, if a
    layer set it, at the first content of a stream. Nothing is sent to the client before the provider has answered well.
    While the route has another deployment, the lifecycle frames of a
    stream are held back until its first content, so that a failure until then is raised with the response untouched.
    Raises `UpstreamError` and `ClientDisconnectedError`; after the start of a stream too, for the outermost layer to
    end it in the dialect. What a provider refused that the gateway itself had added is left out of another attempt.
    The message that ends an answer carries all of its body, or the terminating event of a stream: nothing of what
    makes it complete has been sent before. `recorded` is the exchange once more, where it heeds the entries of a meter.
    Calls of the accounts that `credentials` names are sent by these, with what says who calls.
    """

    def __init__(
        self,
        *,
        providers: Mapping[str, Provider],
        exchange: Exchange,
        recorded: RecordedExchange | None = None,
        clock: Clock,
        read_error: ErrorReader,
        on_provider_error: OnProviderError | None = None,
        count_output: OutputCounterFactory | None = None,
        usage_drain: UsageDrain | None = None,
        credentials: Mapping[str, UpstreamCredential] = _NO_CREDENTIALS,
        max_answer_bytes: int,
    ) -> None:
        self._credentials = credentials
        self._count_output = count_output
        self._usage_drain = usage_drain
        self._providers = providers
        self._exchange = exchange
        self._recorded = recorded
        self._clock = clock
        self._read_error = read_error
        self._on_provider_error = on_provider_error
        self._max_answer_bytes = max_answer_bytes
        self._tower = Watchtower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = REQUEST.get(scope)
        deployment = DEPLOYMENT.peek(scope) or request.route.deployments[0]
        omissions: tuple[Omission, ...] = ()
        while True:
            try:
                await self._once(request, deployment, scope, receive, send)
                break
            except UpstreamStatusError as error:
                # Nothing has been sent to the client before such an error.
                omission = self._providers[deployment.account].omission(request, deployment, error)
                if omission is None:
                    raise
            request = msgspec.structs.replace(request, omits=request.omits | {omission.what})
            omissions = (*omissions, omission)
        for omission in omissions:
            omission.confirm()

    async def _once(
        self, request: ModelRequest, deployment: Deployment, scope: Scope, receive: Receive, send: Send
    ) -> None:
        record, provider = RECORD.get(scope), self._providers[deployment.account]
        attempt = Attempt(deployment=deployment, started=self._clock())
        record.attempts.append(attempt)
        record.answered_by = attempt
        timeouts = deployment.timeouts or provider.timeouts
        try:
            with UntilDisconnect(receive, self._tower, stall=timeouts.write_stall) as watch:
                relay = Relay(
                    record,
                    attempt,
                    send,
                    watch,
                    on_content=ON_CONTENT.peek(scope),
                    heartbeat=timeouts.heartbeat,
                    count_output=self._count_output,
                    clock=self._clock,
                )
                await self._attempt(request, provider, timeouts, relay, METER.peek(scope))
        except BaseException as error:
            attempt.outcome = outcome_of(error)
            if isinstance(error, UpstreamError) and self._on_provider_error is not None:
                self._on_provider_error(record, attempt, error)
            raise
        else:
            attempt.outcome = outcome_of(attempt.failure)
        finally:
            attempt.ended = self._clock()

    async def _attempt(
        self, request: ModelRequest, provider: Provider, timeouts: Timeouts, relay: Relay, meter: Meter | None, /
    ) -> None:
        attempt = relay.attempt
        upstream = provider.prepare(request, attempt.deployment)
        attempt.translation = upstream.translation
        entry = None if meter is None else meter.begin(attempt)
        if meter is not None and entry is not None and entry.written is not None:
            await meter.recorded(entry)
        is_soon = request.is_stream or request.stored is not None
        first_byte = timeouts.first_byte if is_soon else timeouts.answer
        credential = self._credentials.get(attempt.deployment.account)
        if credential is None:
            answer = await self._open(upstream, timeouts, first_byte, entry)
        else:
            answer = await credential.open(
                upstream,
                request,
                lambda signed: self._open(signed, timeouts, first_byte, entry),
                lambda signed: self._open(signed, timeouts, first_byte, None),
            )
        try:
            attempt.status = answer.status
            headers = dict(answer.headers)
            attempt.upstream_request_id = _request_id(headers)
            if b"content-encoding" in headers:
                answer = decoded(answer)
            if not _OK <= answer.status < _REDIRECT:
                raise await self._failure(provider, request, attempt.deployment, answer)
            media = content_type_of(headers.get(b"content-type"), request.surface)
            await relay.answer(answer, request, provider, media, limit=self._max_answer_bytes, timeouts=timeouts)
        except BaseException:
            if not relay.reads_on(answer, self._usage_drain if provider.reads_on_disconnect else None):
                answer.close()
            raise
        answer.conclude()

    def _open(
        self, upstream: UpstreamRequest, timeouts: Timeouts, first_byte: float, entry: Entry | None
    ) -> Awaitable[Answer]:
        if entry is None or self._recorded is None:
            return self._exchange.open(upstream, timeouts, first_byte=first_byte)
        return self._recorded.open(upstream, timeouts, first_byte=first_byte, entry=entry)

    async def _failure(
        self, provider: Provider, request: ModelRequest, deployment: Deployment, answer: Answer
    ) -> UpstreamError:
        body, own = await answer.read(self._max_answer_bytes), request.client_credential
        secrets = provider.secrets if own is None else (*provider.secrets, own.secret.reveal())
        is_clients = deployment.payer is Payer.CLIENT
        return self._read_error(
            answer.status, answer.headers, body, provider=provider.name, secrets=secrets, is_clients=is_clients
        )


def _request_id(headers: dict[bytes, bytes]) -> str | None:
    value = headers.get(b"x-request-id") or headers.get(b"request-id") or headers.get(b"apim-request-id")
    return None if value is None else value[:128].decode("latin-1")
