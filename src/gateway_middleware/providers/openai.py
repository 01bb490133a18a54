"""OpenAI, and every provider that speaks its format at a base URL of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from gateway_middleware.core.domain import Surface
from gateway_middleware.core.provider_api import UpstreamRequest
from gateway_middleware.providers.adapter import Adapter
from gateway_middleware.providers.answers import BinaryReader, JsonReader, TranscriptReader
from gateway_middleware.providers.bodies import upstream_body
from gateway_middleware.providers.events import (
    MAX_MEDIA_EVENT_BYTES,
    ChatEvents,
    MediaEvents,
    QuietChatEvents,
    ResponsesEvents,
)
from gateway_middleware.providers.targets import content_headers, header_value
from gateway_middleware.providers.usage import openai_usage

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Deployment, ModelRequest
    from gateway_middleware.core.provider_api import Provider, ProviderConfig, ProviderKind, ResponseReader
    from gateway_middleware.providers.targets import Headers

OPENAI_SURFACES = frozenset(Surface) - {Surface.MESSAGES, Surface.COUNT_TOKENS}
_TRANSCRIPTS = frozenset({Surface.AUDIO_TRANSCRIPTIONS, Surface.AUDIO_TRANSLATIONS})


class OpenAIProvider(Adapter):
    """`base_url` is what the OpenAI SDK takes: `https://api.openai.com/v1`.

    Raises `ValueError` for an address or credential that cannot be sent.
    """

    __slots__ = ()

    otel_name: ClassVar[str] = "openai"
    price_id: ClassVar[str | None] = "openai"
    public_url: ClassVar[str | None] = "https://api.openai.com/v1"
    options: ClassVar[frozenset[str]] = frozenset({"organization", "project"})

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config, headers=_headers(config), addressing=lambda path: partial(_path, path))

    def supports(self, surface: Surface) -> bool:
        return surface in OPENAI_SURFACES

    def prepare(self, request: ModelRequest, deployment: Deployment) -> UpstreamRequest:
        return UpstreamRequest(
            target=self._targets.get(request, deployment.model),
            body=upstream_body(request, deployment.model, asks_usage=asks_usage(request)),
            headers=content_headers(request),
        )

    def reader(self, request: ModelRequest, *, is_event_stream: bool) -> ResponseReader:
        return openai_reader(request, is_event_stream=is_event_stream, secrets=self.secrets)


def asks_usage(request: ModelRequest) -> bool:
    """Whether the gateway asks for stream usage that the client has not asked for."""
    return request.is_stream and not request.wants_stream_usage and _has_usage_option(request.surface)


def _has_usage_option(surface: Surface) -> bool:
    return surface is Surface.CHAT or surface is Surface.COMPLETIONS  # hashing an enum member costs more


def openai_reader(request: ModelRequest, *, is_event_stream: bool, secrets: tuple[str, ...]) -> ResponseReader:
    """The reader of an answer in OpenAI's format."""
    surface = request.surface
    if is_event_stream:
        return _event_reader(request, secrets)
    if surface is Surface.AUDIO_SPEECH:
        return BinaryReader()
    return (
        TranscriptReader(openai_usage, secrets=secrets)
        if surface in _TRANSCRIPTS
        else JsonReader(openai_usage, secrets=secrets)
    )


def _event_reader(request: ModelRequest, secrets: tuple[str, ...]) -> ResponseReader:
    if _has_usage_option(request.surface):
        return QuietChatEvents(secrets=secrets) if asks_usage(request) else ChatEvents(secrets=secrets)
    if request.surface is Surface.RESPONSES:
        return ResponsesEvents(secrets=secrets, limit=MAX_MEDIA_EVENT_BYTES)
    return MediaEvents(secrets=secrets, limit=MAX_MEDIA_EVENT_BYTES)


def _headers(config: ProviderConfig) -> Headers:
    headers = [(b"authorization", b"Bearer " + header_value(config.api_key.reveal(), "an API key"))]
    if config.organization is not None:
        headers.append((b"openai-organization", header_value(config.organization, "an organization")))
    if config.project is not None:
        headers.append((b"openai-project", header_value(config.project, "a project")))
    return tuple(headers)


def _path(prefix: str, surface: Surface, _model: str) -> str:
    return f"{prefix}/{surface.value}"


if TYPE_CHECKING:
    _: type[Provider] = OpenAIProvider
    _kind: ProviderKind = OpenAIProvider
