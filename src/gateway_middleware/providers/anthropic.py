"""Anthropic, and every provider that speaks its Messages format."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from gateway_middleware.core.domain import Dialect, Surface
from gateway_middleware.core.provider_api import Auth, UpstreamRequest
from gateway_middleware.providers.adapter import Adapter
from gateway_middleware.providers.answers import JsonReader
from gateway_middleware.providers.bodies import upstream_body
from gateway_middleware.providers.credentials import credential_headers
from gateway_middleware.providers.events import MessagesEvents
from gateway_middleware.providers.targets import content_headers, header_value
from gateway_middleware.providers.usage import anthropic_usage_of

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Deployment, ModelRequest
    from gateway_middleware.core.provider_api import Provider, ProviderConfig, ProviderKind, ResponseReader
    from gateway_middleware.providers.targets import PathOf

ANTHROPIC_SURFACES = frozenset({Surface.MESSAGES, Surface.COUNT_TOKENS})
_VERSION = b"anthropic-version"
_DEFAULT_VERSION = "2023-06-01"


class AnthropicProvider(Adapter):
    """`base_url` is the host, as the Anthropic SDK takes it: `https://api.anthropic.com`.

    `api_version` is for clients that name none. Raises `ValueError` for an address or credential that cannot be sent.
    """

    __slots__ = ("_fixed", "_version")

    dialect: ClassVar[Dialect] = Dialect.ANTHROPIC
    model_prefixes: ClassVar[tuple[str, ...]] = ("claude",)
    otel_name: ClassVar[str] = "anthropic"
    price_id: ClassVar[str | None] = "anthropic"
    public_url: ClassVar[str | None] = "https://api.anthropic.com"
    options: ClassVar[frozenset[str]] = frozenset({"api_version"})

    def __init__(self, config: ProviderConfig) -> None:
        self._version = (_VERSION, header_value(config.api_version or _DEFAULT_VERSION, "an API version"))
        self._fixed = frozenset(name.encode() for name, _ in config.headers)
        super().__init__(config, headers=credential_headers(config, Auth.X_API_KEY), addressing=_addressing)

    def supports(self, surface: Surface) -> bool:
        return surface in ANTHROPIC_SURFACES

    def prepare(self, request: ModelRequest, deployment: Deployment) -> UpstreamRequest:
        headers = content_headers(request)
        if self._fixed:  # what the operator has set is not for clients to set
            headers = tuple([pair for pair in headers if pair[0] not in self._fixed])
        if not any(name == _VERSION for name, _ in headers):
            headers = (self._version, *headers)
        return UpstreamRequest(
            target=self._targets.get(request, deployment.model),
            body=upstream_body(request, deployment.model),
            headers=headers,
        )

    def reader(self, request: ModelRequest, *, is_event_stream: bool) -> ResponseReader:
        return (
            MessagesEvents(secrets=self._concealed(request), limit=self._max_event_bytes)
            if is_event_stream
            else JsonReader(anthropic_usage_of, secrets=self._concealed(request))
        )


def _addressing(path: str) -> PathOf:
    return partial(_path, path.removesuffix("/v1"))


def _path(prefix: str, surface: Surface, _model: str) -> str:
    return f"{prefix}/v1/{surface.value}"


if TYPE_CHECKING:
    _: type[Provider] = AnthropicProvider
    _kind: ProviderKind = AnthropicProvider
