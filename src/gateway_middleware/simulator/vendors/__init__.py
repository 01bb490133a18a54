"""Look-alikes of further vendors, below `/as/NAME`: same paths, quirks and refusals as docs/recipes.md lists."""

from __future__ import annotations

from gateway_middleware.simulator.vendors.messages_format import BEDROCK, FOUNDRY
from gateway_middleware.simulator.vendors.openai_format import (
    DEEPSEEK,
    GEMINI,
    GROQ,
    MISTRAL,
    OLLAMA,
    OPENROUTER,
    VLLM,
)
from gateway_middleware.simulator.vendors.vendor import Vendor

__all__ = ["VENDORS", "Vendor"]

VENDORS = {
    vendor.name: vendor for vendor in (VLLM, OLLAMA, GROQ, MISTRAL, DEEPSEEK, OPENROUTER, GEMINI, BEDROCK, FOUNDRY)
}
