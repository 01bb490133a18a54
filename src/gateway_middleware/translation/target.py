"""The model that a translated request is written for."""

from __future__ import annotations

import msgspec

from gateway_middleware.core.domain import Dialect
from gateway_middleware.core.models import ModelFacts


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's model, the provider's own dialect, and what is known of the model."""

    model: str
    dialect: Dialect
    facts: ModelFacts
