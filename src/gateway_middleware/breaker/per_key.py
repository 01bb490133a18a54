"""Circuit breaking for any ASGI application: one breaker for each key, judged by the status of its answers."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.breaker.failure.classes import FailureClass
from gateway_middleware.breaker.failure.retry_after import retry_after
from gateway_middleware.breaker.failure.rules import RULES
from gateway_middleware.breaker.state.errors import CircuitOpenError
from gateway_middleware.breaker.state.factory import BreakerFactory
from gateway_middleware.breaker.state.policy import BreakerPolicy
from gateway_middleware.breaker.state.transitions import eviction_rank
from gateway_middleware.core.bounded import make_room
from gateway_middleware.core.errors import ClientDisconnectedError, GatewayError
from gateway_middleware.core.request_keys import key_of
from gateway_middleware.core.retry_after import retry_after_headers

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.breaker.state.machine import CircuitBreaker, Permit
    from gateway_middleware.breaker.state.snapshot import BreakerSnapshot
    from gateway_middleware.breaker.state.transitions import Transition
    from gateway_middleware.core.asgi import ASGIApp, Connection, Message, Receive, Scope, Send
    from gateway_middleware.core.domain import Clock, HeaderList

    OnReject = Callable[[GatewayError], tuple[int, HeaderList, bytes]]

_FAILED = RULES[FailureClass.SERVER_ERROR]
_LAST = frozenset({"http.response.body", "http.response.pathsend", "http.response.zerocopysend"})
"""Messages that end an answer, unless they say that there is more."""
_STATUSES = frozenset({500, 502, 503, 504, 529})
_DEFAULT_POLICY = BreakerPolicy()


def is_server_failure(status: int) -> bool:
    """500, 502, 503, 504 and 529: the answers that say that a server is not well."""
    return status in _STATUSES


def service_unavailable(error: GatewayError) -> tuple[int, HeaderList, bytes]:
    """Status, headers and body of a refusal: a plain 503 with `Retry-After`."""
    body = msgspec.json.encode({"detail": error.message})
    headers: HeaderList = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    return 503, [*headers, *retry_after_headers(error.retry_after or 0.0), *error.headers], body


class KeyedBreaker:
    """One circuit breaker for each key, made when it is first asked for.

    Of more than `max_keys` those that are closed and were not used longest are forgotten.
    """

    def __init__(self, policy: BreakerPolicy, *, factory: BreakerFactory, max_keys: int = 1024) -> None:
        self._policy = policy
        self._factory = factory
        self._max_keys = max_keys
        self._breakers: OrderedDict[str, CircuitBreaker] = OrderedDict()

    def breaker(self, key: str) -> CircuitBreaker:
        """The breaker of a key, for looking at it, resetting it, forcing it."""
        breaker = self._breakers.get(key)
        if breaker is None:
            make_room(self._breakers, self._max_keys, rank=lambda name: eviction_rank(self._breakers[name].state))
            breaker = self._breakers[key] = self._factory.make(key, self._policy)
        else:
            self._breakers.move_to_end(key)
        return breaker

    def snapshot(self) -> dict[str, BreakerSnapshot]:
        """How all of them stand, by key."""
        return {key: breaker.snapshot() for key, breaker in self._breakers.items()}


class CircuitBreakerMiddleware:
    """Refuses calls at once while the application behind it is failing, and lets single calls find out when it is well.

    There is one breaker for each `key(scope)`; None as a key lets the call pass unjudged. `is_failure` says which
    statuses count; an exception of the application counts too, and so does an answer that it breaks off. A client that
    left says nothing. A refusal is answered with the status, headers and body that `on_reject` makes of it.
    `on_transition` is called when a breaker has changed its state; `breakers` has them all. `clock` is monotonic,
    `wall` the time of day.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        key: Callable[[Scope], str | None],
        policy: BreakerPolicy = _DEFAULT_POLICY,
        is_failure: Callable[[int], bool] = is_server_failure,
        on_reject: OnReject = service_unavailable,
        on_transition: Callable[[Transition], None] | None = None,
        max_keys: int = 1024,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
    ) -> None:
        if not callable(key):
            raise TypeError("key: expected a function of the scope")
        self.app = app
        self._key = key
        self._is_failure = is_failure
        self._on_reject = on_reject
        self._wall = wall
        factory = BreakerFactory(clock=clock, wall=wall, on_transition=on_transition)
        self.breakers = KeyedBreaker(policy, factory=factory, max_keys=max_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = key_of(self._key, scope) if scope["type"] == "http" else None
        if key is None:
            await self.app(scope, receive, send)
            return
        try:
            permit = self.breakers.breaker(key).acquire()
        except CircuitOpenError as error:
            await self._reject(error, send)
            return
        await self._guarded(permit, (scope, receive, send))

    async def _reject(self, error: CircuitOpenError, send: Send) -> None:
        status, headers, body = self._on_reject(error)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _guarded(self, permit: Permit, connection: Connection) -> None:
        scope, receive, send = connection
        answer = _WatchedAnswer(receive, send)
        try:
            await self.app(scope, answer.receive, answer.send)
            self._settle(permit, answer)
        except ClientDisconnectedError:
            raise
        except Exception:
            if not answer.has_left:
                permit.fail(_FAILED)
            raise
        finally:
            permit.release()

    def _settle(self, permit: Permit, answer: _WatchedAnswer) -> None:
        if answer.status and self._is_failure(answer.status):
            wait = retry_after(answer.headers, wall=self._wall())
            permit.fail(msgspec.structs.replace(_FAILED, min_open=wait))
        elif answer.is_ended:
            permit.succeed()
        elif not answer.has_left:
            permit.fail(_FAILED)


class _WatchedAnswer:
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
        elif kind in _LAST and not message.get("more_body", False):
            self.is_ended = True
        try:
            await self._send(message)
        except OSError:
            self.has_left = True
            raise
