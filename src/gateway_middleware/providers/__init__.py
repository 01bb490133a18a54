"""Sans-IO adapters to the providers: bytes in, bytes and usage out, never a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.core.domain import ProviderKind, Timeouts
from gateway_middleware.providers.anthropic import AnthropicProvider
from gateway_middleware.providers.azure_openai import AzureOpenAIProvider
from gateway_middleware.providers.openai import OpenAIProvider

if TYPE_CHECKING:
    from gateway_middleware.core.provider_api import Provider

__all__ = ["AnthropicProvider", "AzureOpenAIProvider", "OpenAIProvider", "make_provider"]


def make_provider(
    kind: ProviderKind,
    *,
    name: str,
    base_url: str,
    api_key: str,
    api_version: str | None = None,
    timeouts: Timeouts = Timeouts(),  # noqa: B008  frozen
    drains: bool = False,
    organization: str | None = None,
    project: str | None = None,
) -> Provider:
    """The adapter for a configured provider.

    `api_version` is not for OpenAI; `organization` and `project` are only for it. Raises `ValueError` for an address,
    version or credential that cannot be sent; the message never repeats the credential.
    """
    if kind is ProviderKind.OPENAI:
        return OpenAIProvider(
            name=name,
            base_url=base_url,
            api_key=api_key,
            timeouts=timeouts,
            drains=drains,
            organization=organization,
            project=project,
        )
    adapter = AnthropicProvider if kind is ProviderKind.ANTHROPIC else AzureOpenAIProvider
    return adapter(
        name=name, base_url=base_url, api_key=api_key, api_version=api_version, timeouts=timeouts, drains=drains
    )
