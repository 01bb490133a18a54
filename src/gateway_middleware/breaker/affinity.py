"""What makes two calls want the same deployment: their tenant, with session, conversation, header or prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.breaker.selection import affinity_key
from gateway_middleware.core.asgi import header
from gateway_middleware.core.domain import Attribution, Balance
from gateway_middleware.core.scope import TENANT

if TYPE_CHECKING:
    from gateway_middleware.core.asgi import Scope
    from gateway_middleware.core.domain import ModelRequest
    from gateway_middleware.core.record import CallRecord

_NOBODY = Attribution()
_PROMPTS = ("instructions", "system", "tools", "messages", "input", "prompt")


class _Conversation(msgspec.Struct):
    id: str


_decode = msgspec.json.Decoder(str | _Conversation | None).decode


def affinity_of(scope: Scope, request: ModelRequest, record: CallRecord) -> bytes:
    """The key of a call to a route that balances by affinity; calls with the same key want the same deployment.

    Two tenants never share one. A call that has not what its route goes by goes by its prompt.
    """
    tenant = TENANT.peek(scope)
    owner = "" if tenant is None else tenant.name
    named = _named(scope, request, record)
    if named:
        return affinity_key(f"{request.route.affinity.by}:{owner}", cache_key=named, prompt=b"")
    fields = request.fields
    cache_key = fields.get("prompt_cache_key")
    prompt = b"".join(bytes(fields[name])[:1024] for name in _PROMPTS if name in fields)
    return affinity_key(
        owner,
        cache_key=None if cache_key is None else bytes(cache_key),
        prompt=prompt or request.body,
        prefix=4096,
    )


def key_affinity(scope: Scope, request: ModelRequest, record: CallRecord) -> bytes:
    """What makes calls stay with one of several keys: the session or conversation, else the end user, else the tenant.

    Providers keep prompts in caches of an account. Where a route balances by affinity, what it goes by decides.
    """
    if request.route.balance is Balance.AFFINITY:
        return affinity_of(scope, request, record)
    tenant, attribution = TENANT.peek(scope), record.attribution or _NOBODY
    owner = "" if tenant is None else tenant.name
    cache_key = request.fields.get("prompt_cache_key")
    conversation = _conversation(request.fields.get("conversation")) or (
        None if cache_key is None else bytes(cache_key)
    )
    named = attribution.session or attribution.end_user if conversation is None else None
    return affinity_key(owner, cache_key=conversation or (named or "").encode("utf-8", "surrogatepass"), prompt=b"")


def _named(scope: Scope, request: ModelRequest, record: CallRecord) -> bytes | None:
    """What the route goes by, of this call; None or nothing: the call has none, or the route goes by prompts."""
    affinity = request.route.affinity
    if affinity.by == "session":
        session = None if record.attribution is None else record.attribution.session
        return None if session is None else session.encode()
    if affinity.by == "conversation":
        return _conversation(request.fields.get("conversation"))
    if affinity.by == "header":
        return header(scope, affinity.header.encode())
    return b"tenant" if affinity.by == "tenant" else None


def _conversation(raw: msgspec.Raw | None) -> bytes | None:
    """Its id, whether it stands there alone or in an object; what is neither is for the provider to refuse."""
    try:
        conversation = None if raw is None else _decode(raw)
    except (ValueError, RecursionError):
        return None
    name = conversation.id if isinstance(conversation, _Conversation) else conversation
    return None if name is None else name.encode("utf-8", "surrogatepass")
