"""A circuit breaker for whatever stands behind an ASGI application, judged by the status of its answers."""

from __future__ import annotations

import time
from collections import OrderedDict
from random import random as system_random
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.breaker.failure.classes import FailureClass
from gateway_middleware.breaker.failure.retry_after import retry_after
from gateway_middleware.breaker.failure.rules import RULES
from gateway_middleware.breaker.state.machine import CircuitBreaker
from gateway_middleware.breaker.state.permit import CircuitOpenError, Permit
from gateway_middleware.breaker.state.policy import BreakerPolicy
from gateway_middleware.breaker.state.transitions import State
from gateway_middleware.core.asgi import ends_response
from gateway_middleware.core.errors import ClientDisconnectedError, GatewayError
from gateway_middleware.core.retry_after import retry_after_headers

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.breaker.state.permit import BreakerSnapshot
    from gateway_middleware.breaker.state.transitions import Transition
    from gateway_middleware.core.asgi import ASGIApp, Connection, Message, Receive, Scope, Send
    from gateway_middleware.core.domain import Clock, HeaderList

    OnReject = Callable[[GatewayError], tuple[int, HeaderList, bytes]]

_FAILED = RULES[FailureClass.SERVER_ERROR]
_STATUSES = frozenset({500, 502, 503, 504, 529})


def is_server_failure(status: int) -> bool:
    """500, 502, 503, 504 and 529: the answers that say that a server is not well."""
    return status in _STATUSES


def service_unavailable(error: GatewayError) -> tuple[int, HeaderList, bytes]:
    """Status, headers and body of a refusal: a plain 503 with `Retry-After`."""
    body = msgspec.json.encode({"detail": error.message})
    headers: HeaderList = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    return 503, [*headers, *retry_after_headers(error.retry_after or 0.0), *error.headers], body


class KeyGuard:
    """One breaker for each `key(scope)`; None as a key lets the call pass unjudged.

    `is_failure` says which statuses count; an exception of the application counts too, and so does an answer that it
    breaks off. A client that left says nothing. `on_reject` answers what is refused. Of more than `most` keys those
    that are closed and were not used longest are forgotten.
    """

    def __init__(
        self,
        key: Callable[[Scope], str | None],
        *,
        policy: BreakerPolicy | None = None,
        on_reject: OnReject = service_unavailable,
        is_failure: Callable[[int], bool] = is_server_failure,
        on_transition: Callable[[Transition], None] | None = None,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
        random: Callable[[], float] = system_random,
        most: int = 1024,
    ) -> None:
        self._key = key
        self._policy = policy or BreakerPolicy()
        self._on_reject = on_reject
        self._is_failure = is_failure
        self._on_transition = on_transition
        self._clock, self._wall, self._random = clock, wall, random
        self._most = most
        self._breakers: OrderedDict[str, CircuitBreaker] = OrderedDict()

    async def __call__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        key = self._key(scope)
        if key is None:
            await app(scope, receive, send)
            return
        try:
            permit = self.breaker(key).acquire()
        except CircuitOpenError as error:
            await self._reject(error, send)
            return
        await self._guarded(permit, app, (scope, receive, send))

    async def _reject(self, error: CircuitOpenError, send: Send) -> None:
        status, headers, body = self._on_reject(error)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _guarded(self, permit: Permit, app: ASGIApp, connection: Connection) -> None:
        scope, receive, send = connection
        reply = _Watched(receive, send)
        try:
            await app(scope, reply.receive, reply.send)
            self._judge(permit, reply)
        except ClientDisconnectedError:
            raise
        except Exception:
            if not reply.has_left:
                permit.fail(_FAILED)
            raise
        finally:
            permit.release()

    def _judge(self, permit: Permit, reply: _Watched) -> None:
        if reply.status and self._is_failure(reply.status):
            wait = retry_after(reply.headers, wall=self._wall())
            permit.fail(msgspec.structs.replace(_FAILED, min_open=wait))
        elif reply.is_ended:
            permit.succeed()
        elif not reply.has_left:
            permit.fail(_FAILED)

    def breaker(self, key: str) -> CircuitBreaker:
        """The breaker of a key, for looking at it, resetting it, forcing it."""
        found = self._breakers.get(key)
        if found is None:
            self._make_room()
            found = self._breakers[key] = CircuitBreaker(
                self._policy,
                key=key,
                clock=self._clock,
                wall=self._wall,
                random=self._random,
                on_transition=self._on_transition,
            )
        else:
            self._breakers.move_to_end(key)
        return found

    def snapshot(self) -> dict[str, BreakerSnapshot]:
        """How all of them stand."""
        return {key: breaker.snapshot() for key, breaker in self._breakers.items()}

    def _make_room(self) -> None:
        if len(self._breakers) >= self._most:
            del self._breakers[min(self._breakers, key=lambda key: _permanence(self._breakers[key].state))]


def _permanence(state: State) -> int:
    """What goes first: closed breakers, and last what an operator has forced."""
    return 0 if state is State.CLOSED else 2 if state in {State.FORCED_OPEN, State.FORCED_CLOSED} else 1


class _Watched:
    """Notes what passes between an application and its client."""

    __slots__ = ("_receive", "_send", "has_left", "headers", "is_ended", "status")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.status = 0
        self.headers: HeaderList = []
        self.is_ended = False
        self.has_left = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self.is_ended:
            self.has_left = True
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self.status = message["status"]
            self.headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
        elif ends_response(message):
            self.is_ended = True
        try:
            await self._send(message)
        except OSError:
            self.has_left = True
            raise
