"""OpenAI, and every provider that speaks its format at a base URL of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from gateway_middleware.core.provider_api import Auth, UpstreamRequest
from gateway_middleware.providers.bodies import upstream_body
from gateway_middleware.providers.credentials import credential_headers
from gateway_middleware.providers.openai_format import OPENAI_SURFACES, OpenAIFormat
from gateway_middleware.providers.targets import content_headers, header_value

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Deployment, ModelRequest, Surface
    from gateway_middleware.core.provider_api import Provider, ProviderConfig, ProviderKind
    from gateway_middleware.providers.targets import Headers


class OpenAIProvider(OpenAIFormat):
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
        if request.stored is not None:
            return self._about_stored(request, request.stored)
        return UpstreamRequest(
            target=self._targets.get(request, deployment.model),
            body=upstream_body(
                request, deployment.model, asks_usage=request.is_stream and self._asks_usage(request, deployment)
            ),
            headers=request.headers if request.fields else content_headers(request),
        )


def _headers(config: ProviderConfig) -> Headers:
    headers = list(credential_headers(config, Auth.BEARER))
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
