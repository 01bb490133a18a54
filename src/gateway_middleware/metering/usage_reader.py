"""Metering for an application that knows nothing of the gateway: usage is read from the answers that it gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.core.domain import Usage
from gateway_middleware.metering.usage_event import OpenCall, UsageEvent, UsageSource

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway_middleware.core.asgi import ASGIApp, Message, Receive, Scope, Send
    from gateway_middleware.metering.middleware import MeteringMiddleware

_MOST_KEPT = 4 * 1024 * 1024
_decode = msgspec.json.Decoder().decode


class UsageReader:
    """Relays untouched; keeps a whole answer, or the events of a stream that speak of usage, until the end."""

    def __init__(self, metering: MeteringMiddleware, tenant_of: Callable[[Scope], str | None]) -> None:
        self._metering = metering
        self._tenant_of = tenant_of

    async def __call__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        tenant = self._tenant_of(scope)
        if tenant is None:
            await app(scope, receive, send)
            return
        call = self._open(tenant, scope)
        reply = _Reply(send)
        try:
            await app(scope, receive, reply.send)
        finally:
            self._close(call, reply)

    def _open(self, tenant: str, scope: Scope) -> OpenCall:
        call_id = self._metering.next_id()
        call = OpenCall(
            id=call_id,
            time=self._metering.wall(),
            tenant=tenant,
            provider="application",
            deployment="application",
            model="unknown",
            surface=scope["path"][:128],
            request_id=call_id,
        )
        self._metering.journal.open(call)
        return call

    def _close(self, call: OpenCall, reply: _Reply) -> None:
        said = reply.said()
        usage = _usage(said)
        if usage is None:
            self._metering.journal.void(call.id)
            return
        model = said.get("model") if isinstance(said.get("model"), str) else None
        event = UsageEvent(
            id=call.id,
            time=call.time,
            tenant=call.tenant,
            provider=call.provider,
            deployment=call.deployment,
            model=model or call.model,
            surface=call.surface,
            request_id=call.request_id,
            outcome="success" if reply.is_ended else "client_disconnect",
            usage=usage,
            usage_source=UsageSource.PROVIDER if reply.is_ended else UsageSource.PARTIAL,
            model_served=model,
            is_stream=reply.is_stream,
            status=reply.status,
            raw_usage=msgspec.Raw(msgspec.json.encode(said["usage"])),
        )
        self._metering.emit(self._metering.appraise(event, None))


class _Reply:
    """What passes on its way to the client."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._kept = bytearray()
        self.status = 0
        self.is_stream = False
        self.is_ended = False

    def send(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            types = [value for name, value in message.get("headers", ()) if name.lower() == b"content-type"]
            self.is_stream = bool(types) and types[0].startswith(b"text/event-stream")
        elif message["type"] == "http.response.body":
            self._keep(message.get("body", b""))
            self.is_ended = not message.get("more_body", False)
        return self._send(message)

    def _keep(self, body: bytes) -> None:
        self._kept += body
        if self.is_stream and len(self._kept) > _MOST_KEPT // 4:
            self._kept = bytearray(b"\n\n".join([*_telling(bytes(self._kept)), bytes(self._kept[-65536:])]))
        if len(self._kept) > _MOST_KEPT:
            del self._kept[: -_MOST_KEPT // 2]

    def said(self) -> dict[str, Any]:
        """Model and usage, as far as the answer tells; what comes later replaces what came before."""
        if not self.is_stream:
            return _object(bytes(self._kept))
        found: dict[str, Any] = {}
        for event in _telling(bytes(self._kept)):
            data = b"".join(line[5:] for line in event.splitlines() if line.startswith(b"data:"))
            outer = _object(data)
            for said in (outer, outer.get("message"), outer.get("response")):
                if isinstance(said, dict):
                    _merge(found, said)
        return found


def _telling(stream: bytes) -> list[bytes]:
    """The events that speak of usage."""
    return [event for event in stream.replace(b"\r\n", b"\n").split(b"\n\n") if b'"usage"' in event]


def _merge(found: dict[str, Any], said: dict[str, Any]) -> None:
    if isinstance(said.get("model"), str):
        found["model"] = said["model"]
    if isinstance(said.get("usage"), dict):
        told = {name: value for name, value in said["usage"].items() if value is not None}
        found["usage"] = {**found.get("usage", {}), **told}


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = _decode(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _usage(said: dict[str, Any]) -> Usage | None:
    """Usage in OpenAI's or Anthropic's words, the latter with its cached tokens beside the input."""
    reported = said.get("usage")
    if not isinstance(reported, dict):
        return None
    read, written = _count(reported, "cache_read_input_tokens"), _count(reported, "cache_creation_input_tokens")
    spent = reported.get("prompt_tokens_details") or reported.get("input_tokens_details")
    made = reported.get("completion_tokens_details") or reported.get("output_tokens_details")
    taken = _first(_count(reported, "prompt_tokens"), _count(reported, "input_tokens"))
    return Usage(
        input_tokens=None if taken is None else taken + (read or 0) + (written or 0),
        output_tokens=_first(_count(reported, "completion_tokens"), _count(reported, "output_tokens")),
        cached_input_tokens=_first(read, _count(spent, "cached_tokens")),
        cache_write_tokens=written,
        reasoning_tokens=_count(made, "reasoning_tokens"),
    )


def _count(reported: object, name: str) -> int | None:
    value = reported.get(name) if isinstance(reported, dict) else None
    return value if type(value) is int and 0 <= value <= 10**9 else None


def _first(one: int | None, other: int | None) -> int | None:
    return other if one is None else one
