"""The list of models that a provider has at its address: how it is asked for, and what it says.

The fields are those of OpenAI's `GET /v1/models` (`created`), of Anthropic's (`created_at`, `display_name`,
`max_input_tokens`, `max_tokens`), and of servers that speak OpenAI's format (`context_length`, `max_model_len`).
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import msgspec

from gateway_middleware.core.domain import Deployment, Dialect, ModelRequest, Route, Surface
from gateway_middleware.core.model_names import is_model_name
from gateway_middleware.core.provider_api import UpstreamTarget

if TYPE_CHECKING:
    from gateway_middleware.core.provider_api import Provider

_SURFACE_OF_PATH = re.compile(r"(/deployments/[^/?]+)?/(chat/completions|messages)(?=\?|$)")
_PAGE = "limit=1000"
"""The longest page of Anthropic's list."""
MAX_MODELS = 2000
_MAX_DISPLAY_NAME = 256

_Tokens = Annotated[int, msgspec.Meta(gt=0, lt=2**53)]


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider says of one of its models. `created` is in seconds since the epoch."""

    id: str
    created: int | None = None
    display_name: str | None = None
    context_window: int | None = None
    max_output_tokens: int | None = None


class _Entry(msgspec.Struct):
    id: str
    created: int | None = None
    created_at: datetime | None = None
    display_name: str | None = None
    max_input_tokens: _Tokens | None = None
    max_tokens: _Tokens | None = None
    context_length: _Tokens | None = None
    max_model_len: _Tokens | None = None


class _List(msgspec.Struct):
    data: list[msgspec.Raw]


_decode_list = msgspec.json.Decoder(_List).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode


def models_target(adapter: Provider) -> UpstreamTarget | None:
    """The list of models, as the adapter would address and sign it; None for a kind whose paths are others."""
    surface = Surface.CHAT if adapter.supports(Surface.CHAT) else Surface.MESSAGES
    deployment = Deployment(provider=adapter.name, model="probe")
    route = Route(name="probe", deployments=(deployment,))
    request = ModelRequest(
        surface=surface, dialect=Dialect.OPENAI, model="probe", route=route, body=b'{"model":"probe"}', fields={}
    )
    prepared = adapter.prepare(request, deployment)
    path, count = _SURFACE_OF_PATH.subn("/models", prepared.target.path)
    if not count:
        return None
    left_out = {b"content-type"}
    headers = tuple(h for h in (*prepared.target.headers, *prepared.headers) if h[0] not in left_out)
    return UpstreamTarget.build(adapter.origin, path, headers, method="GET")


def long_page(target: UpstreamTarget) -> UpstreamTarget:
    """The same list of an Anthropic provider, as long as one page may be."""
    path = f"{target.path}{'&' if '?' in target.path else '?'}{_PAGE}"
    return UpstreamTarget.build(target.origin, path, target.headers, method="GET")


def read_model_list(body: bytes) -> tuple[ListedModel, ...]:
    """The models that have names one can call, at most `MAX_MODELS`; an entry that is none is left out.

    Raises `ValueError` for what is no list.
    """
    try:
        entries = _decode_list(body).data[:MAX_MODELS]
    except RecursionError:
        raise ValueError("nested too deep") from None
    models = (_model(raw) for raw in entries)
    return tuple({model.id: model for model in models if model is not None}.values())


def _model(raw: msgspec.Raw) -> ListedModel | None:
    try:
        entry = _decode_entry(raw)
    except (ValueError, RecursionError):
        return None
    if not is_model_name(entry.id):
        return None
    created = entry.created if entry.created_at is None else int(entry.created_at.timestamp())
    name = entry.display_name
    return ListedModel(
        id=entry.id,
        created=created,
        display_name=name if name and name.isprintable() and len(name) <= _MAX_DISPLAY_NAME else None,
        context_window=entry.max_input_tokens or entry.context_length or entry.max_model_len,
        max_output_tokens=entry.max_tokens,
    )
