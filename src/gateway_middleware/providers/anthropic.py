"""Anthropic, and every provider that speaks its Messages format."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gateway_middleware.core.domain import ProviderKind, Surface, Timeouts
from gateway_middleware.core.provider_api import UpstreamRequest
from gateway_middleware.providers.answers import JsonReader
from gateway_middleware.providers.bodies import upstream_body
from gateway_middleware.providers.events import MessagesEvents
from gateway_middleware.providers.targets import TargetCache, content_headers, header_value, parse_base_url
from gateway_middleware.providers.usage import anthropic_usage

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Deployment, ModelRequest
    from gateway_middleware.core.provider_api import Provider, ResponseReader

ANTHROPIC_SURFACES = frozenset({Surface.MESSAGES, Surface.COUNT_TOKENS})
_VERSION = b"anthropic-version"
_DEFAULT_VERSION = "2023-06-01"


class AnthropicProvider:
    """`base_url` is the host, as the Anthropic SDK takes it: `https://api.anthropic.com`.

    `api_version` is for clients that name none. Raises `ValueError` for an address or credential that cannot be sent.
    """

    __slots__ = ("_targets", "_version", "drains", "kind", "name", "origin", "secrets", "timeouts")

    def __init__(
        self,
        *,
        name: str,
        base_url: str,
        api_key: str,
        api_version: str | None = None,
        timeouts: Timeouts = Timeouts(),  # noqa: B008  frozen
        drains: bool = False,
    ) -> None:
        self.name = name
        self.kind = ProviderKind.ANTHROPIC
        self.timeouts = timeouts
        self.drains = drains
        self.secrets: tuple[str, ...] = (api_key,)
        self._version = (_VERSION, header_value(api_version or _DEFAULT_VERSION, "an API version"))
        self.origin, path = parse_base_url(base_url)
        headers = ((b"x-api-key", header_value(api_key, "an API key")),)
        self._targets = TargetCache(self.origin, partial(_path, path.removesuffix("/v1")), headers)

    def supports(self, surface: Surface) -> bool:
        return surface in ANTHROPIC_SURFACES

    def prepare(self, request: ModelRequest, deployment: Deployment) -> UpstreamRequest:
        headers = content_headers(request)
        if not any(name == _VERSION for name, _ in headers):
            headers = (self._version, *headers)
        return UpstreamRequest(
            target=self._targets.get(request, deployment.model),
            body=upstream_body(request, deployment.model),
            headers=headers,
        )

    def reader(self, request: ModelRequest, *, is_event_stream: bool) -> ResponseReader:
        return (
            MessagesEvents(secrets=self.secrets)
            if is_event_stream
            else JsonReader(anthropic_usage, secrets=self.secrets)
        )


def _path(prefix: str, surface: Surface, _model: str) -> str:
    return f"{prefix}/v1/{surface.value}"


if TYPE_CHECKING:
    _: type[Provider] = AnthropicProvider
