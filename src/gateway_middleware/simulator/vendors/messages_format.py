"""The vendors that serve Claude by Anthropic's Messages. Where each fact is from stands in docs/recipes.md."""

from __future__ import annotations

from gateway_middleware.core.domain import Dialect
from gateway_middleware.simulator.refusals import Refusal
from gateway_middleware.simulator.vendors.vendor import Document, Vendor


def _bedrock_refuses(body: Document) -> Refusal | None:
    model = str(body.get("model"))
    if "anthropic.claude" not in model:
        return Refusal(status=400, message=f"The provided model identifier is invalid: {model}")
    return None


BEDROCK = Vendor(
    name="bedrock",
    base="/anthropic/v1",
    kinds=frozenset({"messages"}),
    credentials=(b"authorization",),
    dialect=Dialect.ANTHROPIC,
    refuses=_bedrock_refuses,
    omits=("anthropic-",),
)
FOUNDRY = Vendor(
    name="foundry",
    base="/anthropic/v1",
    kinds=frozenset({"messages", "messages/count_tokens"}),
    credentials=(b"x-api-key", b"api-key", b"authorization"),
    dialect=Dialect.ANTHROPIC,
    omits=("anthropic-",),
)
