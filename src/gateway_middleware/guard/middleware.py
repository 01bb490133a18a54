"""The layer that shows prompts and answers to guards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.errors import RequestTooLargeError
from gateway_middleware.core.scope import RECORD, REQUEST, TENANT
from gateway_middleware.guard.answer import GuardedAnswer
from gateway_middleware.guard.port import Guarded, GuardRefusedError, Part, Stage

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from gateway_middleware.core.asgi import ASGIApp, Receive, Scope, Send
    from gateway_middleware.core.domain import ModelRequest
    from gateway_middleware.guard.rules import Guarding

_CONTENT = ("messages", "input", "prompt", "system", "instructions")
"""What a guard may replace of a request. Parameters stay those that were limited and priced."""
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class GuardMiddleware:
    """Stands inside `IntakeMiddleware` and outside of what limits and meters: what a guard sees is what is used.

    Only JSON requests, their JSON answers and their event streams are shown, and what was stored of an answer; forms
    and binary answers pass. Raises `GuardRefusedError`, `UnavailableError` where a guard has to be asked and cannot be;
    inside a stream that has begun, its provider is left first.
    """

    def __init__(self, app: ASGIApp, *, guarding: Guarding, max_answer_bytes: int) -> None:
        self.app = app
        self._guarding = guarding
        self._max_answer_bytes = max_answer_bytes

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        request = REQUEST.peek(scope) if scope["type"] == "http" else None
        if request is None or not self._guarding.rules or not _is_shown(request):
            return self.app(scope, receive, send)
        return self._guard(request, scope, receive, send)

    async def _guard(self, request: ModelRequest, scope: Scope, receive: Receive, send: Send) -> None:
        content = None
        if request.fields:
            prompt = _shown(scope, request, Stage.REQUEST, Part.BODY, request.body.decode("utf-8", "replace"))
            content = await self._guarding.check(prompt)
        if content is not None:
            scope = REQUEST.child(scope, _with_content(request, content))
        guarded = GuardedAnswer(
            send,
            receive,
            check=lambda stage, part, text: self._guarding.check(_shown(scope, request, stage, part, text)),
            rules=self._guarding,
            max_bytes=self._max_answer_bytes,
        )
        try:
            await self.app(scope, guarded.receive, guarded.send)
        except Exception:
            if not guarded.has_refused:  # otherwise it is what became of an app that was told that its client has left
                raise
        guarded.raise_refusal()


def _is_shown(request: ModelRequest) -> bool:
    """Whether it has a prompt, or reads what was stored of an answer."""
    return bool(request.fields) or (request.stored is not None and request.stored.method != "DELETE")


def _shown(scope: Scope, request: ModelRequest, stage: Stage, part: Part, content: str) -> Guarded:
    return Guarded(
        stage=stage,
        part=part,
        content=content,
        tenant=TENANT.get(scope).name,
        model=request.model,
        surface=request.surface.label,
        dialect=request.dialect.value,
        request_id=RECORD.get(scope).request_id,
    )


def _with_content(request: ModelRequest, body: str) -> ModelRequest:
    """The request with the prompt of another body. Raises `GuardRefusedError` for a body that is none."""
    try:
        given = _decode(body.encode())
    except ValueError as error:
        raise GuardRefusedError("A guard has replaced this request by something that is none.") from error
    fields = {**request.fields, **{name: given[name] for name in _CONTENT if name in given}}
    changed = _encode(fields)
    if len(changed) > 2 * len(request.body) + _MAX_GROWTH:
        raise RequestTooLargeError("A guard has made this request too large.")
    return msgspec.structs.replace(request, body=changed, fields=_decode(changed))


_MAX_GROWTH = 65536
