"""`/v1/models` and `/v1/models/{id}`: what a tenant may call, in the shape of OpenAI or of Anthropic.

Fields beside the vendors' own, in both shapes and where they are known: `context_window` and `max_output_tokens`
(tokens), `pricing` (US dollars per million tokens, as text), `successor`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gateway_middleware.core.asgi import header
from gateway_middleware.core.domain import Dialect, Retirement
from gateway_middleware.core.errors import UnknownModelError
from gateway_middleware.core.model_names import MAX_MODEL_NAME, is_model_name
from gateway_middleware.core.scope import ENDPOINT, TENANT
from gateway_middleware.operations.documents import answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway_middleware.core.asgi import Receive, Scope, Send
    from gateway_middleware.core.domain import Clock, Tenant

_JSON = msgspec.json.Encoder()


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A name that a tenant may call. `owner` is a provider, `created` in seconds since the epoch; None: not known."""

    id: str
    owner: str
    created: int = 0
    display_name: str | None = None
    context_window: int | None = None
    max_output_tokens: int | None = None
    pricing: dict[str, str] | None = None
    retirement: Retirement = Retirement()


class ModelIndex(Protocol):
    """What a tenant may call, by name."""

    async def visible(self, tenant: Tenant, dialect: Dialect) -> Sequence[ModelEntry]:
        """What this tenant may call, as far as it has names."""
        ...

    async def find(self, model: str, tenant: Tenant, dialect: Dialect) -> ModelEntry | None:
        """The entry of one name, or None when it does not exist for this tenant."""
        ...


class Models:
    """Serves an index. `wall` is the time of day."""

    def __init__(self, index: ModelIndex, wall: Clock) -> None:
        self._index = index
        self._wall = wall

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint, tenant = ENDPOINT.get(scope), TENANT.get(scope)
        is_anthropic = endpoint.dialect is Dialect.ANTHROPIC or header(scope, b"anthropic-version") is not None
        shape = self._anthropic_model if is_anthropic else _openai_model
        if endpoint.argument is None:
            models = [shape(entry) for entry in await self._index.visible(tenant, endpoint.dialect)]
            document = _anthropic_page(models) if is_anthropic else {"object": "list", "data": models}
        else:
            document = shape(await self._one(endpoint.argument, tenant, endpoint.dialect))
        await answer(send, _JSON.encode(document))

    async def _one(self, model: str, tenant: Tenant, dialect: Dialect) -> ModelEntry:
        entry = await self._index.find(model, tenant, dialect) if is_model_name(model) else None
        if entry is None:
            raise UnknownModelError(
                f"The model `{model[:MAX_MODEL_NAME]}` does not exist or you do not have access to it.", param="model"
            )
        return entry

    def _anthropic_model(self, entry: ModelEntry) -> dict[str, Any]:
        retirement, now = entry.retirement, self._wall()
        since = retirement.sunset if retirement.deprecated is None else retirement.deprecated
        stage = "active" if since is None or since > now else "deprecated"
        return {
            "type": "model",
            "id": entry.id,
            "display_name": entry.display_name or entry.id,
            "created_at": _moment(entry.created),
            "lifecycle": stage,
            "deprecated_at": None if stage == "active" else _moment(since),
            "retires_at": _moment(retirement.sunset),
            "max_input_tokens": entry.context_window,
            "max_tokens": entry.max_output_tokens,
            **_known(entry),
        }


def _openai_model(entry: ModelEntry) -> dict[str, Any]:
    sunset = _moment(entry.retirement.sunset)
    document = {"id": entry.id, "object": "model", "created": entry.created, "owned_by": entry.owner}
    ending = {} if sunset is None else {"shutdown_date": sunset[:10]}
    named = {} if entry.display_name is None else {"display_name": entry.display_name}
    return {**document, **ending, **named, **_known(entry)}


def _known(entry: ModelEntry) -> dict[str, Any]:
    """What both shapes have besides."""
    fields = {
        "context_window": entry.context_window,
        "max_output_tokens": entry.max_output_tokens,
        "pricing": entry.pricing,
        "successor": entry.retirement.successor,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _anthropic_page(models: list[dict[str, Any]]) -> dict[str, Any]:
    ids = [model["id"] for model in models] or [None]
    return {"data": models, "has_more": False, "first_id": ids[0], "last_id": ids[-1]}
