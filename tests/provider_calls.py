"""Model requests and readers for the tests of the provider adapters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from gateway_middleware.core.domain import Deployment, Dialect, ModelRequest, Route, Surface
from gateway_middleware.core.errors import UpstreamStatusError
from gateway_middleware.core.provider_api import Provider, ProviderConfig, ResponseReader
from gateway_middleware.core.secret import Secret
from gateway_middleware.providers import KINDS

KEY = "sk-provider-key-0123456789"


def provider_of(kind: str, base_url: str, *, name: str = "p", api_key: str = KEY, **others: Any) -> Provider:
    """An adapter of one of the built-in kinds."""
    return KINDS[kind](ProviderConfig(name=name, kind=kind, base_url=base_url, api_key=Secret(api_key), **others))


OPENAI = provider_of("openai", "https://api.openai.com/v1", name="openai")
ANTHROPIC = provider_of("anthropic", "https://api.anthropic.com", name="anthropic")
AZURE = provider_of("azure_openai", "https://res.openai.azure.com", name="azure")
PROVIDERS: dict[str, Provider] = {"openai": OPENAI, "anthropic": ANTHROPIC, "azure": AZURE}
JSON = b"application/json"

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def deployment(model: str = "gpt-x", provider: str = "openai") -> Deployment:
    return Deployment(provider=provider, model=model)


def model_request(
    surface: Surface = Surface.CHAT, body: bytes = b'{"model":"gpt-x"}', *, content_type: bytes = JSON, **others: Any
) -> ModelRequest:
    target = deployment()
    return ModelRequest(
        surface=surface,
        dialect=Dialect.OPENAI,
        model="gpt-x",
        route=Route(name="gpt-x", deployments=(target,)),
        body=body,
        fields=_members.decode(body) if content_type == JSON else {},
        content_type=content_type,
        **others,
    )


def tried_without(provider: Provider, request: ModelRequest, to: Deployment, error: UpstreamStatusError) -> bool:
    """Whether the provider's refusal is one of what the gateway has added; then the try without it succeeds."""
    omission = provider.omission(request, to, error)
    if omission is not None:
        omission.confirm()
    return omission is not None


def reader_of(
    surface: Surface, *, is_event_stream: bool, wants_usage: bool = True, provider: Provider | None = None
) -> ResponseReader:
    chosen = provider or (ANTHROPIC if ANTHROPIC.supports(surface) else OPENAI)
    request = model_request(surface, is_stream=is_event_stream, wants_stream_usage=wants_usage)
    return chosen.reader(request, is_event_stream=is_event_stream)


def relay(reader: ResponseReader, chunks: Iterable[bytes]) -> bytes:
    """Feed a reader to its end; returns all it relayed."""
    relayed = [piece for chunk in chunks for piece in (reader.feed(chunk), *reader.rest)]
    return b"".join([*relayed, reader.finish(), *reader.rest])


def pieces(body: bytes, size: int) -> list[bytes]:
    return [body[i : i + size] for i in range(0, len(body), size)]
