"""OpenAI, and every provider that speaks its format at a base URL of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gateway_middleware.core.domain import ProviderKind, Surface, Timeouts
from gateway_middleware.core.provider_api import UpstreamRequest
from gateway_middleware.providers.answers import BinaryReader, JsonReader, TranscriptReader
from gateway_middleware.providers.bodies import upstream_body
from gateway_middleware.providers.events import (
    MAX_MEDIA_EVENT_BYTES,
    ChatEvents,
    MediaEvents,
    QuietChatEvents,
    ResponsesEvents,
)
from gateway_middleware.providers.targets import TargetCache, content_headers, header_value, parse_base_url
from gateway_middleware.providers.usage import openai_usage

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Deployment, ModelRequest
    from gateway_middleware.core.provider_api import Provider, ResponseReader

OPENAI_SURFACES = frozenset(Surface) - {Surface.MESSAGES, Surface.COUNT_TOKENS}
_TRANSCRIPTS = frozenset({Surface.AUDIO_TRANSCRIPTIONS, Surface.AUDIO_TRANSLATIONS})


class OpenAIProvider:
    """`base_url` is what the OpenAI SDK takes: `https://api.openai.com/v1`.

    Raises `ValueError` for an address or credential that cannot be sent.
    """

    __slots__ = ("_targets", "drains", "kind", "name", "origin", "secrets", "timeouts")

    def __init__(
        self,
        *,
        name: str,
        base_url: str,
        api_key: str,
        timeouts: Timeouts = Timeouts(),  # noqa: B008  frozen
        drains: bool = False,
        organization: str | None = None,
        project: str | None = None,
    ) -> None:
        self.name = name
        self.kind = ProviderKind.OPENAI
        self.timeouts = timeouts
        self.drains = drains
        self.secrets: tuple[str, ...] = (api_key,)
        self.origin, prefix = parse_base_url(base_url)
        headers = [(b"authorization", b"Bearer " + header_value(api_key, "an API key"))]
        if organization is not None:
            headers.append((b"openai-organization", header_value(organization, "an organization")))
        if project is not None:
            headers.append((b"openai-project", header_value(project, "a project")))
        self._targets = TargetCache(self.origin, partial(_path, prefix), tuple(headers))

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


def _path(prefix: str, surface: Surface, _model: str) -> str:
    return f"{prefix}/{surface.value}"


if TYPE_CHECKING:
    _: type[Provider] = OpenAIProvider
