"""Azure OpenAI: OpenAI's format at Azure's addresses.

The v1 API has the model in the body, as OpenAI has. Dated versions name the deployment in the path, except for
responses.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from gateway_middleware.core.domain import Dialect, Surface
from gateway_middleware.core.provider_api import Auth, UpstreamRequest
from gateway_middleware.providers.bodies import upstream_body
from gateway_middleware.providers.credentials import credential_headers
from gateway_middleware.providers.openai_format import OPENAI_SURFACES, OpenAIFormat
from gateway_middleware.providers.targets import content_headers, segment

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Deployment, ModelRequest
    from gateway_middleware.core.provider_api import Provider, ProviderConfig, ProviderKind
    from gateway_middleware.providers.targets import PathOf

AZURE_SURFACES = OPENAI_SURFACES - {Surface.MODERATIONS}
_WITHOUT_DEPLOYMENT = (Surface.RESPONSES, Surface.INPUT_TOKENS, Surface.COMPACT)
_V1_QUERIES = {None: "", "v1": "", "preview": "?api-version=preview", "latest": "?api-version=preview"}
_DATED = re.compile(r"\d{4}-\d{2}-\d{2}[A-Za-z0-9.-]*")
_FIRST_WITH_STREAM_OPTIONS = "2024-09-01"
_REFUSING_STREAM_OPTIONS = frozenset({"data_sources", "dataSources"})
"""Azure "On Your Data" answers 400 to a request that also holds `stream_options` (Microsoft Q&A 2280689)."""


class AzureOpenAIProvider(OpenAIFormat):
    """`base_url` is the resource's endpoint: `https://NAME.openai.azure.com`.

    `api_version` None, `v1`, `preview` and `latest` mean the v1 API, a date the older one. Raises `ValueError` for an
    address, version or credential that cannot be sent.
    """

    __slots__ = ("_is_dated",)

    dialect: ClassVar[Dialect] = Dialect.AZURE
    otel_name: ClassVar[str] = "azure.ai.openai"
    price_id: ClassVar[str | None] = "azure"
    options: ClassVar[frozenset[str]] = frozenset({"api_version"})

    def __init__(self, config: ProviderConfig) -> None:
        version = config.api_version
        self._is_dated = version not in _V1_QUERIES
        headers = credential_headers(config, Auth.API_KEY)
        super().__init__(config, headers=headers, addressing=partial(_addressing, version))
        if self._is_dated and str(version) < _FIRST_WITH_STREAM_OPTIONS:
            self._takes_stream_options = False

    def supports(self, surface: Surface) -> bool:
        return surface in AZURE_SURFACES

    def prepare(self, request: ModelRequest, deployment: Deployment) -> UpstreamRequest:
        if request.stored is not None:
            return self._about_stored(request, request.stored)
        is_in_path = self._is_dated and request.surface not in _WITHOUT_DEPLOYMENT
        target = self._targets.get(request, deployment.model)
        body = upstream_body(
            request, deployment.model, asks_usage=self._asks_usage(request, deployment), needs_model=not is_in_path
        )
        return UpstreamRequest(target=target, body=body, headers=content_headers(request))

    def _asks_usage(self, request: ModelRequest, deployment: Deployment) -> bool:
        return super()._asks_usage(request, deployment) and _REFUSING_STREAM_OPTIONS.isdisjoint(request.fields)


def _addressing(api_version: str | None, path: str) -> PathOf:
    prefix = path.removesuffix("/openai/v1").removesuffix("/openai") + "/openai"
    query = _V1_QUERIES.get(api_version)
    if query is not None:
        return partial(_v1_path, prefix, query)
    if api_version is None or _DATED.fullmatch(api_version) is None:
        raise ValueError("an Azure API version must be v1, preview, latest or a date such as 2024-10-21")
    return partial(_dated_path, prefix, f"?api-version={api_version}")


def _v1_path(prefix: str, query: str, surface: Surface, _model: str) -> str:
    return f"{prefix}/v1/{surface.value}{query}"


def _dated_path(prefix: str, query: str, surface: Surface, model: str) -> str:
    place = "" if surface in _WITHOUT_DEPLOYMENT else f"/deployments/{segment(model)}"
    return f"{prefix}{place}/{surface.value}{query}"


if TYPE_CHECKING:
    _: type[Provider] = AzureOpenAIProvider
    _kind: ProviderKind = AzureOpenAIProvider
