"""Endpoints of operators: commands to circuit breakers, actions without arguments, documents with a query."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

from gateway_middleware.core.errors import ClientDisconnectedError, InvalidRequestError, RequestTooLargeError
from gateway_middleware.core.scope import ENDPOINT, RECORD
from gateway_middleware.operations.documents import answer

if TYPE_CHECKING:
    from gateway_middleware.core.asgi import Receive, Scope, Send

_ENCODE = msgspec.json.Encoder().encode
_MAX_BODY_BYTES = 16 * 1024


class CommandOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a command, which may be left out. `ttl` in seconds."""

    ttl: float | None = None
    reason: str = "operator"


class Requester(msgspec.Struct, frozen=True):
    """Who gave a command: for the audit line."""

    request_id: str
    client: str


RunCommand = Callable[[str, str, CommandOptions, Requester], Awaitable[dict[str, Any]]]
_decode = msgspec.json.Decoder(CommandOptions).decode


class BreakerCommands:
    """`POST /v1/admin/circuit-breakers/{key}/{command}`: runs the command and answers with its result."""

    def __init__(self, run: RunCommand) -> None:
        self._run = run

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = ENDPOINT.get(scope)
        command = endpoint.path.rpartition("/")[2]
        options = _options(await body_of(receive))
        document = await self._run(endpoint.argument or "", command, options, requester(scope))
        await answer(send, _ENCODE(document))


class Action:
    """An operator's command without arguments."""

    def __init__(self, run: Callable[[Requester], Awaitable[dict[str, Any]]]) -> None:
        self._run = run

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await body_of(receive)
        await answer(send, _ENCODE(await self._run(requester(scope))))


class ArgumentAction:
    """An operator's command to what the path names."""

    def __init__(self, run: Callable[[str, Requester], Awaitable[dict[str, Any]]]) -> None:
        self._run = run

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await body_of(receive)
        await answer(send, _ENCODE(await self._run(ENDPOINT.get(scope).argument or "", requester(scope))))


class QueryDocument:
    """A document that depends on the query: `?from=2026-11-01&to=2026-11-24`."""

    def __init__(self, make: Callable[[dict[str, str]], Awaitable[dict[str, Any]]]) -> None:
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        await answer(send, _ENCODE(await self._make(query)))


def requester(scope: Scope) -> Requester:
    """Who is calling."""
    client = scope.get("client")
    return Requester(RECORD.get(scope).request_id, str(client[0]) if client else "unknown")


def _options(body: bytes) -> CommandOptions:
    if not body.strip():
        return CommandOptions()
    try:
        options = _decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"The body must be an object with `ttl` and `reason`: {error}") from None
    if len(options.reason) > 256:
        raise InvalidRequestError("`reason` is for at most 256 characters.", param="reason")
    return options


async def body_of(receive: Receive) -> bytes:
    """The whole body. Raises `RequestTooLargeError` above 16 KiB, `ClientDisconnectedError`."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnectedError
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > _MAX_BODY_BYTES:
            raise RequestTooLargeError(f"The body is larger than {_MAX_BODY_BYTES} bytes.")
    return body
