"""Sans-IO adapters to the providers: bytes in, bytes and usage out, never a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.providers.adapter import Adapter
from gateway_middleware.providers.anthropic import AnthropicProvider
from gateway_middleware.providers.azure_openai import AzureOpenAIProvider
from gateway_middleware.providers.openai import OpenAIProvider

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway_middleware.core.provider_api import ProviderKind

__all__ = ["KINDS", "Adapter", "AnthropicProvider", "AzureOpenAIProvider", "OpenAIProvider"]

KINDS: Mapping[str, ProviderKind] = {
    "openai": OpenAIProvider,
    "anthropic": AnthropicProvider,
    "azure_openai": AzureOpenAIProvider,
}
"""The kinds of providers by their names in the configuration. `{**KINDS, "mine": MyProvider}` has one more."""
