"""OpenAI's wire format, whoever speaks it at whatever address: asking for the usage of a stream, reading answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.core.domain import MODEL_SURFACES, Surface
from gateway_middleware.core.omissions import Omissions
from gateway_middleware.core.provider_api import UpstreamRequest
from gateway_middleware.providers.adapter import Adapter
from gateway_middleware.providers.answers import BinaryReader, JsonReader, TranscriptReader
from gateway_middleware.providers.events import ChatEvents, MediaEvents, QuietChatEvents, ResponsesEvents
from gateway_middleware.providers.stored_responses import StoredEvents, StoredReader
from gateway_middleware.providers.usage import openai_usage_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.core.domain import Deployment, ModelRequest, StoredCall
    from gateway_middleware.core.errors import UpstreamStatusError
    from gateway_middleware.core.omissions import Omission
    from gateway_middleware.core.provider_api import ProviderConfig, ResponseReader
    from gateway_middleware.providers.targets import Headers, PathOf

OPENAI_SURFACES = frozenset(MODEL_SURFACES) - {Surface.MESSAGES, Surface.COUNT_TOKENS}
_TRANSCRIPTS = frozenset({Surface.AUDIO_TRANSCRIPTIONS, Surface.AUDIO_TRANSLATIONS})
_REFUSALS = frozenset({400, 422})
_STREAM_OPTIONS = (b"stream_options", b"include_usage")


class OpenAIFormat(Adapter):
    """Asks for the usage of a stream where the client has not, unless that was switched off or has been refused."""

    __slots__ = ("_omissions", "_takes_stream_options")

    def __init__(self, config: ProviderConfig, *, headers: Headers, addressing: Callable[[str], PathOf]) -> None:
        super().__init__(config, headers=headers, addressing=addressing)
        self._takes_stream_options = config.stream_options
        self._omissions = Omissions("stream_options")

    def _about_stored(self, request: ModelRequest, stored: StoredCall) -> UpstreamRequest:
        target = self._targets.of_stored(stored, is_stream=request.is_stream)
        return UpstreamRequest(target=target, body=b"", headers=request.headers)

    def reader(self, request: ModelRequest, *, is_event_stream: bool) -> ResponseReader:
        if request.stored is not None:
            stored = StoredEvents if is_event_stream else StoredReader
            return stored(secrets=self.secrets, limit=self._max_event_bytes)
        if is_event_stream:
            return self._event_reader(request)
        if request.surface is Surface.AUDIO_SPEECH:
            return BinaryReader()
        whole = TranscriptReader if request.surface in _TRANSCRIPTS else JsonReader
        return whole(openai_usage_of, secrets=self._concealed(request))

    def _event_reader(self, request: ModelRequest) -> ResponseReader:
        if _has_usage_option(request.surface):
            chat = QuietChatEvents if _needs_to_ask(request) and not request.shows_cost else ChatEvents
            return chat(choices=request.choices, secrets=self._concealed(request), limit=self._max_event_bytes)
        other = ResponsesEvents if request.surface is Surface.RESPONSES else MediaEvents
        return other(secrets=self._concealed(request), limit=self._max_event_bytes)

    def omission(self, request: ModelRequest, deployment: Deployment, error: UpstreamStatusError) -> Omission | None:
        """Some servers of this format refuse `stream_options`; the usage of their streams is then estimated."""
        if self._takes_stream_options and _needs_to_ask(request) and _is_about_stream_options(error):
            return self._omissions.refused(request, deployment)
        return None

    def _asks_usage(self, request: ModelRequest, deployment: Deployment) -> bool:
        """Whether the gateway asks for stream usage that the client has not asked for."""
        if not (self._takes_stream_options and _needs_to_ask(request)):
            return False
        return not (request.omits or self._omissions.models) or not self._omissions.apply(request, deployment)


def _needs_to_ask(request: ModelRequest) -> bool:
    return request.is_stream and not request.wants_stream_usage and _has_usage_option(request.surface)


def _has_usage_option(surface: Surface) -> bool:
    return surface is Surface.CHAT or surface is Surface.COMPLETIONS  # hashing an enum member costs more


def _is_about_stream_options(error: UpstreamStatusError) -> bool:
    return error.upstream_status in _REFUSALS and any(name in error.body for name in _STREAM_OPTIONS)
