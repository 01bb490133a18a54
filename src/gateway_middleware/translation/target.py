"""The model that a translated request is written for."""

from __future__ import annotations

import msgspec

from gateway_middleware.core.domain import ProviderKind
from gateway_middleware.core.models import ModelFacts


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's model and what is known of it."""

    model: str
    kind: ProviderKind
    facts: ModelFacts
